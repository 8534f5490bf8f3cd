"""What a user is told of a fetch, and that the hub goes on meanwhile."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent
import pytest

from runner.engine.request import InvalidRequest
from runner.fetching.download import DownloadFailed, DownloadTooLarge
from runner.fetching.fetcher import AT_ONCE, Fetcher


@contextmanager
def fetcher(download: Callable[[str], bytes], timeout_s: float = 30) -> Iterator[Fetcher]:
    made = Fetcher(download, timeout_s=timeout_s, max_bytes=1000)
    try:
        yield made
    finally:
        made.stop()


def refusal(fetch: Fetcher) -> tuple[str, str, str]:
    with pytest.raises(InvalidRequest) as caught:
        fetch("http://example.com/", "mask_url")
    return caught.value.field, caught.value.message, caught.value.kind


def failing(error: Exception) -> Callable[[str], bytes]:
    def download(_: str) -> bytes:
        raise error

    return download


def test_what_comes_is_handed_on() -> None:
    with fetcher(lambda url: url.encode()) as fetch:
        assert fetch("http://example.com/", "image_url") == b"http://example.com/"


def test_all_that_can_go_wrong_is_told_in_the_same_words() -> None:
    """Or it would be a port scanner: closed, filtered and private must look alike."""
    told = set()
    for why in ("ConnectError", "took too long", "the address is not public", "status 500"):
        with fetcher(failing(DownloadFailed(why))) as fetch:
            told.add(refusal(fetch))
    held = threading.Event()
    with fetcher(lambda _: held.wait() and b"", timeout_s=0.05) as fetch:
        told.add(refusal(fetch))
        held.set()
    message = "no picture could be fetched from this address; send it as a data URI"
    assert told == {("mask_url", message, "image_load_error")}


def test_too_large_is_told() -> None:
    with fetcher(failing(DownloadTooLarge("body"))) as fetch:
        message = "the picture at this address has more than 1000 bytes"
        assert refusal(fetch) == ("mask_url", message, "image_too_large")


def test_why_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with fetcher(failing(DownloadFailed("the address is not public"))) as fetch:
        refusal(fetch)
    assert "a picture for mask_url could not be fetched: the address is not public" in caplog.text
    assert "example.com" not in caplog.text


def test_a_failure_prints_no_traceback(capfd: pytest.CaptureFixture[str]) -> None:
    """Its causes repeat the URL, which may hold a secret, or lines that look like ours."""

    def download(url: str) -> bytes:
        raise DownloadFailed("ConnectError") from ValueError(f"{url} is no URL")

    with fetcher(download) as fetch:
        refusal(fetch)
    assert "Traceback" not in (printed := capfd.readouterr().err)
    assert "example.com" not in printed


def test_the_hub_goes_on_and_only_so_many_run_at_once() -> None:
    held, running, most = threading.Event(), [], 0
    lock = threading.Lock()
    full = threading.Semaphore(0)

    def download(_: str) -> bytes:
        nonlocal most
        with lock:
            running.append(1)
            most = max(most, len(running))
        full.release()
        held.wait(30)
        with lock:
            running.pop()
        return b"x"

    with fetcher(download) as fetch:
        waiting = [gevent.spawn(fetch, "http://example.com/", "image_url") for _ in range(3 * AT_ONCE)]
        with gevent.Timeout(30):
            for _ in range(AT_ONCE):
                gevent.get_hub().threadpool.apply(full.acquire)  # the hub turns, while every thread of ours is held
        held.set()
        gevent.joinall(waiting, timeout=30)
        assert [greenlet.value for greenlet in waiting] == [b"x"] * (3 * AT_ONCE)
        assert most == AT_ONCE


def test_the_time_limit_of_whoever_waits_is_not_ours_to_explain() -> None:
    held = threading.Event()
    with fetcher(lambda _: held.wait() and b"") as fetch:
        theirs = gevent.Timeout(0.05)
        with pytest.raises(gevent.Timeout) as caught, theirs:
            fetch("http://example.com/", "image_url")
        assert caught.value is theirs
        held.set()


def test_its_end_waits_for_no_download() -> None:
    begun, held = threading.Event(), threading.Event()

    def download(_: str) -> bytes:
        begun.set()
        held.wait(60)
        return b""

    fetch = Fetcher(download, timeout_s=60, max_bytes=1000)
    waiting = gevent.spawn(fetch, "http://example.com/", "image_url")
    assert gevent.get_hub().threadpool.apply(begun.wait, (30,))
    with gevent.Timeout(30):
        fetch.stop()
    held.set()
    waiting.kill()
