"""Roles, rates and rotation of API keys; revocations, one-time tokens, quotas, audit and usage.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Applies this step."""
    with op.batch_alter_table("api_keys") as table:
        table.add_column(sa.Column("roles", sa.JSON(), nullable=False, server_default='["mint"]'))
        table.add_column(sa.Column("expires_at", sa.BigInteger()))
        table.add_column(sa.Column("rate_per_minute", sa.BigInteger()))
        table.add_column(sa.Column("daily_quota", sa.BigInteger()))
        table.add_column(sa.Column("limits", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("previous_secret_sha256", sa.LargeBinary(32)))
        table.add_column(sa.Column("previous_valid_until", sa.BigInteger()))
    op.create_table(
        "revocations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("issued_before", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False, index=True),
    )
    op.create_table(
        "redeemed_tokens",
        sa.Column("jti", sa.String(64), primary_key=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=False, index=True),
    )
    op.create_table(
        "daily_mints",
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("minted", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "audit_events",
        # SQLite numbers the rows of an INTEGER key alone.
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True),
        sa.Column("event_id", sa.String(36), nullable=False, unique=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False, index=True),
        sa.Column("actor", sa.String(64)),
        sa.Column("key_id", sa.String(64), index=True),
        sa.Column("subject", sa.String(128)),
        sa.Column("jti", sa.String(64)),
        sa.Column("app", sa.String(200)),
        sa.Column("address", sa.String(64)),
        sa.Column("detail", sa.JSON(), nullable=False),
    )
    op.create_table(
        "daily_usage",
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("app", sa.String(200), primary_key=True),
        sa.Column("tokens", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("refused", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("connections", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("seconds", sa.Double(), nullable=False, server_default="0"),
        sa.Column("images", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("pixels", sa.BigInteger(), nullable=False, server_default="0"),
    )


def downgrade() -> None:
    """Takes this step back."""
    for table in ("daily_usage", "audit_events", "daily_mints", "redeemed_tokens", "revocations"):
        op.drop_table(table)
    with op.batch_alter_table("api_keys") as batch:
        for column in (
            "previous_valid_until",
            "previous_secret_sha256",
            "limits",
            "daily_quota",
            "rate_per_minute",
            "expires_at",
            "roles",
        ):
            batch.drop_column(column)
