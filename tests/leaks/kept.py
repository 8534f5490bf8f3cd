"""What a service keeps and shows: its tables and its metrics, searched for secrets when a test is over."""

from flask import Flask
from sqlalchemy import select

from authsvc.context import Context
from authsvc.store.database import FAILURES, Database
from authsvc.store.models import Base, SigningKeyRow
from tests.leaks.plugin import HUNT

_MEANT = {SigningKeyRow.__table__.c.private_pem}
"""The columns that hold secrets: the private keys, until they retire."""


def search_tables(database: Database) -> None:
    """Searches every row of every table. Of an API key only a hash is kept, of a token nothing."""
    with database.reading() as session:
        for table in Base.metadata.sorted_tables:
            columns = [column for column in table.c if column not in _MEANT]
            for row in session.execute(select(*columns)):
                HUNT.search(f"a row of {table.name}", "\n".join(str(value) for value in row))


def search_service(app: Flask) -> None:
    """Searches what the service of a test has kept; a database that the test has broken holds nothing to search."""
    context = app.extensions["authsvc"]
    assert isinstance(context, Context)
    HUNT.search("the metrics", app.test_client().get("/metrics").text)
    try:
        search_tables(context.database)
    except FAILURES:
        return
