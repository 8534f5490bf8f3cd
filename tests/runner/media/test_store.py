"""The folder as greenlets see it."""

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gevent
import pytest

from runner.media.folder import MediaFolder
from runner.media.store import FolderFull, MediaStore


@contextmanager
def store(path: Path | None, max_bytes: int = 2**20) -> Iterator[MediaStore]:
    made = MediaStore(path, max_bytes=max_bytes, ttl_s=600, max_ttl_s=1000)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def kept_for(media: MediaStore, keep_s: float | None) -> float:
    file = media.get(media.put(b"picture", "image/png", keep_s))
    assert file is not None
    return file.expires_at - time.time()


@pytest.mark.parametrize(("wish", "kept"), [(None, 600), (5, 5), (900, 900), (10**9, 1000), (0.001, 1)])
def test_a_wish_counts_within_the_bounds(tmp_path: Path, wish: float | None, kept: float) -> None:
    with store(tmp_path) as media:
        assert kept_for(media, wish) == pytest.approx(kept, abs=2)


def test_without_a_folder_there_is_a_private_one_that_goes_with_it() -> None:
    with store(None) as media:
        name = media.put(b"picture", "image/png")
        assert media._folder is not None
        path = media._folder.path
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert os.listdir(path) == [name]
    assert not path.exists()


def test_where_nothing_can_be_written_it_starts_and_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with store(None) as media, pytest.raises(FolderFull):
        media.put(b"picture", "image/png")
    assert "RUNNER_MEDIA_DIR" in caplog.text


def test_a_picture_that_cannot_be_kept_prints_no_traceback(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with store(tmp_path, max_bytes=4096) as media, pytest.raises(FolderFull):
        media.put(bytes(4097), "image/png")
    assert "Traceback" not in capfd.readouterr().err


def test_a_folder_that_was_named_stays(tmp_path: Path) -> None:
    with store(tmp_path) as media:
        name = media.put(b"picture", "image/png")
    with store(tmp_path) as media:
        assert media.get(name) is not None


def test_what_was_not_started_keeps_nothing(tmp_path: Path) -> None:
    media = MediaStore(tmp_path, max_bytes=2**20, ttl_s=600, max_ttl_s=1000)
    assert media.get("x") is None
    with pytest.raises(FolderFull):
        media.put(b"picture", "image/png")


def test_the_hub_turns_while_the_disk_is_waited_for(tmp_path: Path) -> None:
    """A pipe in the folder stands in for a disk that hangs: opening it blocks its thread."""
    with store(tmp_path) as media:
        name = media.put(b"", "image/png")
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        reader = gevent.spawn(media.get, name)
        assert media.get("6b49d23c-" + "A" * 32 + ".png") is None  # others are answered meanwhile
        assert not reader.ready()
        gevent.get_hub().threadpool.apply((tmp_path / name).write_bytes, (b"late",))
        assert reader.get(timeout=30).content == b"late"


def test_what_expires_goes_from_the_disk_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    media = MediaStore(tmp_path / "media", max_bytes=2**20, ttl_s=600, max_ttl_s=1000, sweep_s=0.01)
    media.start()
    try:
        expired = MediaFolder(tmp_path / "media", 2**20, clock=lambda: time.time() - 100).put(b"", "image/png", 60)
        with gevent.Timeout(30):
            while (tmp_path / "media" / expired).exists():
                gevent.sleep(0.01)
            (tmp_path / "media").rmdir()
            while "could not be swept" not in caplog.text:
                gevent.sleep(0.01)
            (tmp_path / "media").mkdir()
        assert media.get(media.put(b"picture", "image/png")) is not None  # it goes on
    finally:
        media.stop()
