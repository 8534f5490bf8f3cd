"""Changes keys again and again, and is killed again and again: `python -m tests.faults.crashing SEED create|rotate`.

A child does it in a loop, so that the kill finds it at its work and not at its start. What it did it prints, one line
a key.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable

from authsvc.cli import main
from authsvc.cli.config import load_settings
from authsvc.domain import signing_keys
from authsvc.installation import open_database

LIVES = 30
CHANGES_A_LIFE = 6
LONGEST_S = 12
"""On a machine with much else to do there are fewer lives than `LIVES`."""


def create() -> None:
    main(["keys", "create", "--apps", "fal-ai/fast-lcm-diffusion"], standalone_mode=False)


def rotate() -> None:
    """What `signing-keys rotate` does, without its wait for the runners."""
    with open_database(load_settings()) as database, database.writing() as session:
        kid = signing_keys.rotate(session, now=time.time()).kid
    print(kid, flush=True)


def crash(seed: int, change: Callable[[], None]) -> None:
    moments, deadline = random.Random(seed), time.monotonic() + LONGEST_S
    change()  # whatever is imported late is there before the first fork
    begin = time.monotonic()
    change()
    life_s = CHANGES_A_LIFE * (time.monotonic() - begin)
    for _ in range(LIVES):
        if time.monotonic() > deadline:
            break
        child = os.fork()
        while not child:
            change()
        time.sleep(moments.uniform(0, life_s))  # the moment of a crash is up to chance
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), "it failed before it was killed"


if __name__ == "__main__":
    crash(int(sys.argv[1]), {"create": create, "rotate": rotate}[sys.argv[2]])
