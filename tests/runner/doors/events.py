"""Session events for tests."""

import uuid
from typing import Any

from schemas.events import EventKind, SessionEvent


def session_event(**fields: Any) -> SessionEvent:
    """A `connected` event; `fields` change it."""
    defaults = {"event_id": uuid.uuid4(), "kind": EventKind.CONNECTED, "at": 1, "app": "fal-ai/x", "jti": "t-1"}
    return SessionEvent(**defaults | fields)
