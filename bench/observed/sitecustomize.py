"""Counts a process's greenlets from inside. Python imports a module of this name when it starts (see bench.soak).

What a process has frozen (`gc.freeze`) is not seen: of the gateway, those that it began with.
"""

import gc
import os
import sys
import threading
import time
from pathlib import Path

FOLDER_VARIABLE = "LCM_SOAK_FOLDER"
"""Takes a file for each process, named by its id, with the last count."""
EVERY_S = 2.0


def _count(folder: Path) -> None:
    target, draft = folder / str(os.getpid()), folder / f"{os.getpid()}.draft"
    while folder.exists():
        if (module := sys.modules.get("greenlet")) is not None:
            # A greenlet is true while it lives; those that have ended wait for the collector like any object.
            count = sum(isinstance(each, module.greenlet) and bool(each) for each in gc.get_objects())
            try:
                draft.write_text(str(count))
                draft.replace(target)
            except FileNotFoundError:  # the soak is over
                return
        time.sleep(EVERY_S)


def _start() -> None:
    if folder := os.environ.get(FOLDER_VARIABLE):
        threading.Thread(target=_count, args=(Path(folder),), name="observer", daemon=True).start()


_start()
os.register_at_fork(after_in_child=_start)  # gunicorn's workers
