"""Runs the migrations on the connection that `authsvc.store.database` hands over."""

from alembic import context

from authsvc.store.models import Base

connection = context.config.attributes["connection"]
# render_as_batch: SQLite changes a table by copying it.
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
