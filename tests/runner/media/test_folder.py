"""Files that expire, in a real folder of a real disk."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.media.folder import FolderFull, MediaFolder, StoredFile

KIB = 1024
BLOCK = 4 * KIB


@dataclass
class Clock:
    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def folder(path: Path, clock: Clock, max_bytes: int = 64 * KIB) -> MediaFolder:
    made = MediaFolder(path, max_bytes, clock)
    made.open()
    return made


def age(path: Path, name: str, seconds: float) -> None:
    """Makes a file older: the files of a test are all written within one tick of some disks."""
    status = (path / name).stat()
    os.utime(path / name, (status.st_atime, status.st_mtime - seconds))


def test_what_is_kept_can_be_read_until_it_expires(tmp_path: Path, clock: Clock) -> None:
    media = folder(tmp_path / "media", clock)
    name = media.put(b"picture", "image/png", keep_s=60)
    assert media.get(name) == StoredFile(b"picture", "image/png", 1_800_000_060)
    clock.now += 59.5
    assert media.get(name) is not None
    clock.now += 1
    assert media.get(name) is None
    media.sweep()
    assert os.listdir(media.path) == []


def test_nobody_else_on_this_machine_can_look(tmp_path: Path, clock: Clock) -> None:
    media = folder(tmp_path / "a" / "media", clock)
    name = media.put(b"picture", "image/png", 60)
    assert (media.path.stat().st_mode & 0o777, (media.path / name).stat().st_mode & 0o777) == (0o700, 0o600)


def test_names_cannot_be_guessed(tmp_path: Path, clock: Clock) -> None:
    media = folder(tmp_path, clock)
    tokens = {media.put(b"", "image/png", 60).partition("-")[2].partition(".")[0] for _ in range(10)}
    assert len(tokens) == 10
    assert {len(token) for token in tokens} == {32}  # of 64 characters each: 192 bits


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../secret.png",
        "/etc/passwd",
        "6b49d23c-" + "A" * 32 + ".png/../x",
        "6b49d23c-" + "A" * 32 + ".svg",
        "6b49d23c-" + "A" * 32 + ".png.part",
        "6b49d23c-" + "A" * 32 + ".png\n",
        "6b49d23c-" + "A" * 31 + "/.png",
        "6b49d23c-" + "A" * 32 + ".png\0",
        "6B49D23C-" + "A" * 32 + ".png",
        "٦b49d23c-" + "A" * 32 + ".png",
    ],
)
def test_no_other_name_is_looked_for(tmp_path: Path, clock: Clock, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    media = folder(tmp_path / "media", clock)
    (media.path / ("6b49d23c-" + "A" * 32 + ".png.part")).write_bytes(b"half")
    assert media.get(name) is None


@given(st.text(max_size=80))
def test_any_name_is_a_file_or_none(name: str) -> None:
    assert MediaFolder(Path("/nonexistent"), KIB).get(name) is None


def test_a_restart_forgets_nothing_but_what_expired(tmp_path: Path, clock: Clock) -> None:
    before = folder(tmp_path, clock)
    kept, gone = before.put(b"kept", "image/jpeg", 600), before.put(b"gone", "image/jpeg", 60)
    clock.now += 300
    after = folder(tmp_path, clock)
    assert (after.get(kept), after.get(gone)) == (StoredFile(b"kept", "image/jpeg", 1_800_000_600), None)
    assert os.listdir(tmp_path) == [kept]


def test_half_a_file_of_a_killed_process_is_swept_once_it_is_surely_abandoned(tmp_path: Path, clock: Clock) -> None:
    media = folder(tmp_path, clock)
    part = media.put(b"half", "image/png", 10_000) + ".part"
    (tmp_path / part.removesuffix(".part")).rename(tmp_path / part)
    os.utime(tmp_path / part, (clock.now, clock.now))
    media.sweep()
    assert os.listdir(tmp_path) == [part]  # another process may be writing it
    clock.now += 601
    media.sweep()
    assert os.listdir(tmp_path) == []


def test_what_is_not_ours_stays(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    media = folder(tmp_path, clock, max_bytes=BLOCK)
    for _ in range(3):
        media.put(b"picture", "image/png", 60)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(os.listdir(tmp_path)) == 2


def test_the_oldest_give_way(tmp_path: Path, clock: Clock) -> None:
    media = folder(tmp_path, clock, max_bytes=10 * BLOCK)
    names = [media.put(bytes(BLOCK), "image/png", 60) for _ in range(10)]
    for seconds, name in enumerate(reversed(names)):
        age(tmp_path, name, seconds)
    last = media.put(bytes(BLOCK), "image/png", 60)
    there = [name for name in [*names, last] if media.get(name)]
    assert there == [*names[2:], last]  # down to nine tenths, the new one among them


def test_the_expired_give_way_first(tmp_path: Path, clock: Clock) -> None:
    media = folder(tmp_path, clock, max_bytes=2 * BLOCK)
    lasting, brief = media.put(b"1", "image/png", 600), media.put(b"2", "image/png", 60)
    age(tmp_path, lasting, 100)
    clock.now += 61
    new = media.put(b"3", "image/png", 60)
    assert media.get(brief) is None
    assert media.get(new)
    assert not (tmp_path / brief).exists()


def test_it_never_holds_more_than_its_bound(tmp_path: Path, clock: Clock) -> None:
    media = folder(tmp_path, clock, max_bytes=64 * KIB)
    for size in [1, 5_000, 30_000, 64_000, 12_345, 0, 64 * KIB] * 3:
        media.put(bytes(size), "image/webp", 60)
        assert sum(max(-(-file.stat().st_size // BLOCK), 1) * BLOCK for file in tmp_path.iterdir()) <= 64 * KIB


def test_what_is_too_large_alone_displaces_nobody(tmp_path: Path, clock: Clock) -> None:
    media = folder(tmp_path, clock, max_bytes=64 * KIB)
    name = media.put(b"picture", "image/png", 60)
    with pytest.raises(FolderFull):
        media.put(bytes(64 * KIB + 1), "image/png", 60)
    assert media.get(name) is not None


def test_a_disk_that_takes_no_more_loses_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: the kernel fails the write in the middle alike."""
    script = f"""
import os, resource, signal, sys
from pathlib import Path
from runner.media.folder import FolderFull, MediaFolder
media = MediaFolder(Path({str(tmp_path)!r}), 10**9)
media.open()
kept = media.put(b"kept", "image/png", 60)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
try:
    media.put(bytes(200_000), "image/png", 60)
except FolderFull:
    assert os.listdir(media.path) == [kept], os.listdir(media.path)
    assert media.get(kept).content == b"kept"
    assert media.get(media.put(b"small", "image/png", 60)).content == b"small"
    print("full")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("full\n", 0), done.stderr


def test_a_folder_that_vanished_is_full_and_not_a_crash(tmp_path: Path, clock: Clock) -> None:
    media = folder(tmp_path / "media", clock)
    media.path.rmdir()
    for size in (1, 64 * KIB, 1):  # the second would have to sweep
        with pytest.raises(FolderFull):
            media.put(bytes(size), "image/png", 60)
    media.path.mkdir()
    assert media.get(media.put(bytes(64 * KIB), "image/png", 60)) is not None  # what failed takes no room


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        folder(tmp_path / "file" / "media", clock)


def test_threads_at_once_stay_within_the_bound(tmp_path: Path) -> None:
    media = folder(tmp_path, Clock(time.time()), max_bytes=20 * BLOCK)
    with ThreadPoolExecutor(8) as threads:
        names = list(threads.map(lambda size: media.put(bytes(size), "image/png", 60), range(100, 6_000, 59)))
    assert len(set(names)) == 100
    assert sum(max(-(-file.stat().st_size // BLOCK), 1) for file in tmp_path.iterdir()) <= 20
    assert media.get(names[-1]) is not None
