"""The database itself refuses to change an audit event that was written.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_MESSAGE = "audit events are never changed"


def upgrade() -> None:
    """Applies this step."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute(
            f"CREATE TRIGGER audit_events_stay BEFORE UPDATE ON audit_events "
            f"BEGIN SELECT RAISE(ABORT, '{_MESSAGE}'); END"
        )
        return
    op.execute(
        f"CREATE FUNCTION refuse_to_change_audit_events() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{_MESSAGE}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_events_stay BEFORE UPDATE ON audit_events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_to_change_audit_events()"
    )


def downgrade() -> None:
    """Takes this step back."""
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_events_stay")
        return
    op.execute("DROP TRIGGER audit_events_stay ON audit_events")
    op.execute("DROP FUNCTION refuse_to_change_audit_events()")
