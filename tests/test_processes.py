"""The helper that the other tests stand on: it must not pass what has failed."""

import sys

import psutil
import pytest

from tests.processes import start_process

READY = "import signal; print('up at http://127.0.0.1:8123/'); "


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_it_waits_for_the_line_and_reads_the_url() -> None:
    with start_process(python("print('first');" + READY + "signal.pause()")) as process:
        assert (process.url, process.port) == ("http://127.0.0.1:8123", 8123)
        assert process.lines[0] == "first"
        assert psutil.pid_exists(process.pid)
    assert not psutil.pid_exists(process.pid)


def test_a_process_that_ends_too_early_fails_with_what_it_said() -> None:
    with (
        pytest.raises(AssertionError, match="the reason"),
        start_process(python("import sys; sys.exit('the reason')")),
    ):
        pass


def test_a_process_that_says_nothing_fails_and_is_ended() -> None:
    with (
        pytest.raises(AssertionError, match=r"said nothing of the kind for 0\.1 s"),
        start_process(python("import signal; signal.pause()"), timeout_s=0.1),
    ):
        pass


def test_children_end_with_their_parent() -> None:
    code = "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
    with start_process(python(code + "print('child', c.pid);" + READY + "signal.pause()")) as process:
        child = psutil.Process(int(process.wait_for_line(r"child (\d+)")[1]))
    assert psutil.wait_procs([child], timeout=30)[1] == []


def test_settings_of_ours_do_not_leak_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTHSVC_PORT", "1")
    code = "import os; print([name for name in os.environ if name.startswith('AUTHSVC')], os.environ['GIVEN']);"
    with start_process(python(code + READY + "signal.pause()"), {"GIVEN": "this"}) as process:
        assert process.lines[0] == "[] this"
