"""Pictures that answers link to, as a browser reads them from a real runner."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from runner.media.folder import MediaFolder
from tests.processes import Process, module, start_process

PICTURE = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> MediaFolder:
    """What an earlier runner left behind."""
    made = MediaFolder(tmp_path_factory.mktemp("media"), 2**20)
    made.open()
    return made


@pytest.fixture(scope="module")
def runner(tiny_bundle: Path, folder: MediaFolder) -> Iterator[Process]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    settings = {"RUNNER_PORT": "0", "RUNNER_MODEL": str(tiny_bundle), "RUNNER_DEVICE": "cpu"}
    settings |= {"RUNNER_AUTHSVC_URL": nobody, "RUNNER_MEDIA_DIR": str(folder.path)}
    with start_process(module("runner", "serve"), settings) as process:
        yield process


@pytest.mark.parametrize("content_type", ["image/jpeg", "image/png", "image/webp"])
def test_whoever_has_the_name_can_look(runner: Process, folder: MediaFolder, content_type: str) -> None:
    name = folder.put(PICTURE, content_type, keep_s=600)
    answer = httpx.get(f"{runner.url}/files/{name}")
    assert (answer.status_code, answer.content) == (200, PICTURE)
    headers = answer.headers
    assert headers["Content-Type"] == content_type
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Access-Control-Allow-Origin"] == "*"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    private, max_age, _ = headers["Cache-Control"].split(", ")
    assert private == "private"
    assert 0 < int(max_age.removeprefix("max-age=")) <= 600


def test_head_says_the_same_without_the_picture(runner: Process, folder: MediaFolder) -> None:
    url = f"{runner.url}/files/{folder.put(PICTURE, 'image/png', 600)}"
    got, headed = httpx.get(url), httpx.head(url)
    assert (headed.status_code, headed.content) == (200, b"")
    for name in ("Content-Type", "Content-Length", "ETag", "Accept-Ranges"):
        assert headed.headers[name] == got.headers[name]


@pytest.mark.parametrize(
    ("wanted", "start", "end"), [("bytes=0-9", 0, 10), ("bytes=100-", 100, len(PICTURE)), ("bytes=-1", -1, None)]
)
def test_ranges_can_be_read(runner: Process, folder: MediaFolder, wanted: str, start: int, end: int | None) -> None:
    url = f"{runner.url}/files/{folder.put(PICTURE, 'image/png', 600)}"
    answer = httpx.get(url, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (206, PICTURE[start:end])
    assert answer.headers["Content-Range"].endswith(f"/{len(PICTURE)}")


@pytest.mark.parametrize("wanted", [f"bytes={len(PICTURE)}-", "bytes=9-1", "lines=1-2", "bytes=", "bytes=0-1,4-5"])
def test_a_range_that_cannot_be_had_gets_all_of_it(runner: Process, folder: MediaFolder, wanted: str) -> None:
    url = f"{runner.url}/files/{folder.put(PICTURE, 'image/png', 600)}"
    answer = httpx.get(url, headers={"Range": wanted})
    assert (answer.status_code, answer.content) == (200, PICTURE)
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert "Content-Range" not in answer.headers


def test_what_a_browser_has_already_is_not_sent_again(runner: Process, folder: MediaFolder) -> None:
    url = f"{runner.url}/files/{folder.put(PICTURE, 'image/png', 600)}"
    again = httpx.get(url, headers={"If-None-Match": httpx.get(url).headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/files/",
        "/files/%2e%2e",
        "/files/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/files/..%2fsettings.py",
        "/files//etc/passwd",
        "/files/6b49d23c-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.png",
        "/files/6b49d23c-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.png%00",
    ],
)
def test_everything_else_is_not_there(runner: Process, path: str) -> None:
    answer = httpx.get(f"{runner.url}{path}")
    assert answer.status_code == 404
    assert answer.json()["error_type"] == "not_found"


def test_an_expired_file_is_not_there(runner: Process, folder: MediaFolder) -> None:
    name = MediaFolder(folder.path, 2**20, clock=lambda: time.time() - 100).put(PICTURE, "image/png", 60)
    assert (folder.path / name).exists()
    answer = httpx.get(f"{runner.url}/files/{name}")
    assert answer.status_code == 404
    assert "expired" in answer.json()["detail"]
    assert answer.headers["Cache-Control"] == "no-store"


def test_it_is_read_and_nothing_else(runner: Process, folder: MediaFolder) -> None:
    url = f"{runner.url}/files/{folder.put(PICTURE, 'image/png', 600)}"
    assert {httpx.request(method, url).status_code for method in ("POST", "PUT", "DELETE", "PATCH")} == {405}
    assert httpx.get(url).content == PICTURE


def test_a_media_folder_that_cannot_be_used_ends_the_runner_with_a_word(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    settings = {"RUNNER_PORT": "0", "RUNNER_MODEL": str(tiny_bundle), "RUNNER_MEDIA_DIR": str(tmp_path / "file" / "x")}
    with start_process(module("runner", "serve"), settings, "Error: cannot serve") as process:
        assert "file" in process.wait_for_line("Error: cannot serve").string
        assert process.wait() == 1
