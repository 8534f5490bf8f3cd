"""How many files a process may have open."""

import subprocess
import sys

import pytest

_ALLOW = """
import logging, resource
from httpbase import open_files
logging.basicConfig(format="%(message)s")
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
open_files.allow(100)
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "after", "is_warned"),
    [(64, 2000, "(600, 2000)", False), (64, 300, "(300, 300)", True), (700, 2000, "(700, 2000)", False)],
)
def test_a_process_gets_what_its_connections_need_as_far_as_the_system_lets_it(
    soft: int, hard: int, after: str, is_warned: bool
) -> None:
    command = [sys.executable, "-c", _ALLOW.format(soft=soft, hard=hard)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == after
    assert ("ulimit" in done.stderr) == is_warned
