"""How many files a process may have open: each connection is one.

Many systems start processes with 1024, which is less than the connections that we allow. Beyond it no connection is
accepted, and a database cannot be opened either; any process may raise its own limit as far as the system lets it.
"""

import logging
import resource
from typing import Final

logger = logging.getLogger(__name__)

BESIDE_CONNECTIONS: Final = 500
"""What a process opens besides: stores, logs, its workers."""


def allow(connections: int) -> None:
    """Raises the limit of this process, and of those that it starts, to what so many connections need."""
    wanted = connections + BESIDE_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        logger.warning(
            "this system lets a process open %d files, and %d connections need %d: raise its limit (ulimit -Hn)",
            allowed,
            connections,
            wanted,
        )
