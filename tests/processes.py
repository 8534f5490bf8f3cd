"""Real processes for tests: started, waited for by what they print, and stopped. Nothing here sleeps."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent
URL_PATTERN = r"(?P<url>(?:https?|wss?)://[^\s\"'\x1b]+)"
_OURS = ("AUTHSVC_", "RUNNER_", "WEB_", "FAL_")

# What a test run does with all that its children print (see tests/leaks).
watch_process: "Callable[[Process], None]" = lambda process: None  # noqa: E731
watch_command: Callable[[str, tuple[str, ...], str, str], None] = lambda name, args, stdout, stderr: None  # noqa: E731


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of ours, so that only `extra` configures a child."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    if "LCM_TEST_SECRETS" in inherited:
        others = inherited.get("PYTHONPATH")
        inherited["PYTHONPATH"] = os.pathsep.join([str(ROOT / "tests" / "leaks"), *([others] if others else [])])
    return {**inherited, "PYTHONUNBUFFERED": "1", **(extra or {})}


class Process:
    """A running child. `lines` is what it printed so far, stdout and stderr in the order of arrival."""

    def __init__(self, args: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self.args = list(args)
        self.lines: list[str] = []
        self.url = ""
        self._printed = threading.Condition()
        self._ended = False
        self._popen = subprocess.Popen(
            self.args,
            cwd=ROOT,
            env=clean_environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,  # its children end with it, and a signal to us does not reach it
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def port(self) -> int:
        """The port of `url`."""
        port = urlsplit(self.url).port
        assert port is not None, f"no port in {self.url!r}"
        return port

    @property
    def text(self) -> str:
        """Everything printed so far."""
        return "\n".join(self.lines)

    def wait_for_line(self, pattern: str, timeout_s: float = 60) -> re.Match[str]:
        """The first line, printed already or yet to come, in which `pattern` is found."""
        seen = 0
        found: re.Match[str] | None = None

        def is_decided() -> bool:
            nonlocal seen, found
            while found is None and seen < len(self.lines):
                found = re.search(pattern, self.lines[seen])
                seen += 1
            return found is not None or self._ended

        with self._printed:
            self._printed.wait_for(is_decided, timeout_s)
        if found is None:
            how = "ended" if self._ended else f"said nothing of the kind for {timeout_s} s"
            raise AssertionError(f"{self.args} {how}; waited for {pattern!r}:\n{self.text}")
        return found

    def send_signal(self, number: signal.Signals) -> None:
        self._popen.send_signal(number)

    def kill_all(self) -> None:
        """kill -9 to the process and its children at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self, timeout_s: float = 30) -> int:
        """Waits for the end; gives the exit status."""
        return self._popen.wait(timeout_s)

    def stop(self, timeout_s: float = 30) -> int:
        """SIGTERM, and kill -9 to all that is left; gives the exit status."""
        if self._popen.poll() is None:
            self._popen.terminate()
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.args} did not stop in {timeout_s} s:\n{self.text}") from None
        finally:
            self.kill_all()
            self._popen.wait()
            self._reader.join()
            assert self._popen.stdout is not None
            self._popen.stdout.close()
            watch_process(self)

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            with self._printed:
                self.lines.append(line.rstrip("\n"))
                self._printed.notify_all()
        with self._printed:
            self._ended = True
            self._printed.notify_all()


@contextlib.contextmanager
def start_process(
    args: Sequence[str],
    env: Mapping[str, str] | None = None,
    ready_pattern: str = URL_PATTERN,
    timeout_s: float = 60,
) -> Iterator[Process]:
    """Runs a process until the block ends; the block starts once a line matches `ready_pattern`.

    Args:
        args: The command. `python -m ...` of ours: see `module`.
        env: Settings, on top of a clean environment.
        ready_pattern: Its group `url`, if there is one, becomes the process's `url`.
        timeout_s: How long to wait for the line before the test fails.
    """
    process = Process(args, env)
    try:
        found = process.wait_for_line(ready_pattern, timeout_s)
        process.url = (found.groupdict().get("url") or "").rstrip("/.,")
        yield process
    finally:
        process.stop()


def module(name: str, *args: str) -> list[str]:
    """The command that runs a module of ours with this interpreter."""
    return [sys.executable, "-m", name, *args]


def run_module(
    name: str, *args: str, env: Mapping[str, str] | None = None, stdin: str = "", timeout_s: float = 60
) -> subprocess.CompletedProcess[str]:
    """Runs a module of ours to its end; gives its exit status, stdout and stderr."""
    done = subprocess.run(
        module(name, *args),
        cwd=ROOT,
        env=clean_environment(env),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    watch_command(name, args, done.stdout, done.stderr)
    return done
