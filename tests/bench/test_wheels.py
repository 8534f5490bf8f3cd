"""Wheels that come in parts, in several goes, are put together once the last part is there."""

from bench.wheels import _join


def test_parts_become_a_wheel_when_all_are_there(tmp_path):
    carried, kept = tmp_path / "carried", tmp_path / "kept"
    carried.mkdir()
    (carried / "a-1.whl.part01-last").write_bytes(b"lo")
    assert _join(carried, kept) == []

    (carried / "a-1.whl.part00").write_bytes(b"hel")
    (wheel,) = _join(carried, kept)

    assert wheel.name == "a-1.whl"
    assert wheel.read_bytes() == b"hello"
    assert _join(carried, kept) == []
