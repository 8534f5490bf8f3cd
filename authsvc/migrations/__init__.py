"""The steps from an empty database to the tables of `authsvc.store.models`."""

from functools import cache
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent


@cache
def head() -> str:
    """The newest revision. A file's name begins with its revision, four digits, so Alembic need not be asked."""
    return max(path.name[:4] for path in (FOLDER / "versions").glob("[0-9]*.py"))
