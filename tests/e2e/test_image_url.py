"""Pictures from addresses, through a real runner: fetched where that is enabled, and from nowhere inside."""

import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.e2e.sessions import session
from tests.runner.fetching.servers import Server, redirect, response, serving
from tests.stack import Stack, running

REFUSED = "no picture could be fetched from this address; send it as a data URI"
INPUT = {"prompt": "a star", "num_inference_steps": 1, "seed": 7}


def encoded() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = encoded()


@pytest.fixture(scope="module")
def inside() -> Iterator[Server]:
    """What no user may reach, though it listens on an allowed port."""
    with serving(response(PICTURE), "127.0.0.2") as server:
        yield server


@pytest.fixture(scope="module")
def outside(inside: Server) -> Iterator[Server]:
    """What stands for the public internet."""
    pages = {
        "/a.png": response(PICTURE, Content_Type="text/html"),
        "/page.png": response(b"<html>", Content_Type="image/png"),
        "/cut.png": response(PICTURE[:60], Content_Type="image/png"),
        "/inside": redirect(inside.url(host="127.0.0.2")),
        "/missing?signature=S3CRET": response(status="404 Not Found"),
        "/missing": response(status="404 Not Found"),
    }

    def say(connection: socket.socket, head: bytes) -> None:
        if head.startswith(b"GET "):  # and no TLS
            pages[head.split()[1].decode()](connection, head)

    with serving(say) as server:
        yield server


@pytest.fixture(scope="module")
def fetching(bundle: Path, outside: Server, inside: Server) -> Iterator[Stack]:
    ports = f"80,443,{outside.port},{inside.port}"
    with running(bundle, fetch_urls="true", fetch_allow="127.0.0.1", fetch_ports=ports, fetch_timeout_s="10") as stack:
        yield stack


def refusal(stack: Stack, **fields: Any) -> dict[str, Any]:
    """The field error that an input gets; the session must go on after it."""
    with session(stack) as asked:
        asked.send(**INPUT, **fields)
        message = asked.socket.recv(timeout=60)
        assert isinstance(message, str), "a picture was drawn"
        assert asked.ask(**INPUT)["images"]
    error = json.loads(message)
    assert error["error"] == "VALIDATION_ERROR", error
    [entry] = error["detail"]
    return dict(entry)


def test_a_picture_is_fetched_where_that_is_enabled(fetching: Stack, outside: Server) -> None:
    with session(fetching) as asked:
        fetched = asked.ask(**INPUT, strength=0.3, image_url=outside.url("/a.png"))
        sent = asked.ask(**INPUT, strength=0.3, image_bytes=PICTURE)
    assert fetched["images"] == sent["images"]


def test_a_mask_too(fetching: Stack, outside: Server) -> None:
    with session(fetching) as asked:
        assert asked.ask(**INPUT, image_bytes=PICTURE, mask_url=outside.url("/a.png"))["images"]


@pytest.mark.parametrize("field", ["image_url", "mask_url"])
def test_inside_is_told_like_nobody_there(fetching: Stack, outside: Server, inside: Server, field: str) -> None:
    rest = {"image_bytes": PICTURE} if field == "mask_url" else {}
    urls = [
        inside.url(host="127.0.0.2"),
        inside.url(host="127.2"),
        inside.url(host="0x7f000002"),
        inside.url(host="[::ffff:127.0.0.2]"),
        inside.url(host="127.0.0.1"),  # nobody there
        outside.url("/inside"),
        outside.url("/missing"),
        outside.url(scheme="https"),  # no TLS there
        "http://169.254.169.254/latest/meta-data",
        "http://nobody.invalid/",
        "http://127.0.0.1:22/",
        "file:///etc/passwd",
    ]
    told = [refusal(fetching, **rest, **{field: url}) for url in urls]
    assert inside.heads == []
    assert [(entry["msg"], entry["type"], entry["loc"]) for entry in told] == [
        (REFUSED, "image_load_error", ["body", field])
    ] * len(urls)


@pytest.mark.parametrize("path", ["/page.png", "/cut.png"])
def test_what_is_no_picture_is_a_field_error_whatever_it_calls_itself(
    fetching: Stack, outside: Server, path: str
) -> None:
    entry = refusal(fetching, image_url=outside.url(path))
    assert (entry["type"], entry["loc"]) == ("image_load_error", ["body", "image_url"])
    assert entry["msg"] != REFUSED


def test_by_default_nothing_is_fetched(stack: Stack, outside: Server) -> None:
    before = len(outside.heads)
    entry = refusal(stack, image_url=outside.url("/a.png"))
    assert (entry["type"], entry["loc"]) == ("url_scheme", ["body", "image_url"])
    assert len(outside.heads) == before


def test_addresses_stay_out_of_the_log(fetching: Stack, outside: Server) -> None:
    refusal(fetching, image_url=outside.url("/missing?signature=S3CRET"))
    fetching.runner.wait_for_line("a picture for image_url could not be fetched: status 404")
    assert "S3CRET" not in fetching.runner.text
