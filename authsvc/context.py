"""What a request handler needs, reached through the application and never through a global of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from flask import Flask, current_app

from authsvc.ledger.audit_buffer import AuditBuffer
from authsvc.limiting import RateLimits
from authsvc.settings import Settings
from authsvc.store.database import Database

_EXTENSION: Final = "authsvc"


@dataclass(frozen=True, slots=True)
class Context:
    """The parts of one application. `clock` gives unix time in seconds."""

    settings: Settings
    database: Database
    clock: Callable[[], float]
    audit: AuditBuffer
    """Must be closed before the database is, or the last events are lost."""
    limits: RateLimits

    def close(self) -> None:
        """Writes what is still to be written and closes the database, at the end of the process."""
        self.limits.close()
        self.audit.close()
        self.database.close()

    def attach(self, app: Flask) -> None:
        """Makes this the context of an application."""
        app.extensions[_EXTENSION] = self


def context() -> Context:
    """The context of the application that handles the current request."""
    found = current_app.extensions[_EXTENSION]
    assert isinstance(found, Context)
    return found
