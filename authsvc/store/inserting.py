"""INSERT … ON CONFLICT, which SQLite and PostgreSQL spell alike and SQLAlchemy keeps in two places."""

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from authsvc.store.models import Base


def insert(session: Session, table: type[Base]) -> sqlite.Insert | postgresql.Insert:
    """An insert for the database that the session is on; it has `on_conflict_do_nothing` and `…_do_update`."""
    is_postgresql = session.get_bind().dialect.name == "postgresql"
    return postgresql.insert(table) if is_postgresql else sqlite.insert(table)
