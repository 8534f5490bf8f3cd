"""API keys and signing keys.

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SECONDS = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Applies this step."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("apps", sa.JSON(), nullable=False),
        sa.Column("created_at", SECONDS, nullable=False),
        sa.Column("revoked_at", SECONDS),
    )
    op.create_table(
        "signing_keys",
        sa.Column("kid", sa.String(43), primary_key=True),
        sa.Column(
            "state",
            sa.Enum("next", "current", "retired", native_enum=False, create_constraint=True, name="key_state"),
            nullable=False,
        ),
        sa.Column("x", sa.String(43), nullable=False),
        sa.Column("private_pem", sa.Text()),
        sa.Column("created_at", SECONDS, nullable=False),
        sa.Column("activated_at", SECONDS),
        sa.Column("retired_at", SECONDS),
    )
    op.create_index(
        "one_active_key_a_state",
        "signing_keys",
        ["state"],
        unique=True,
        sqlite_where=sa.text("state != 'retired'"),
        postgresql_where=sa.text("state != 'retired'"),
    )


def downgrade() -> None:
    """Takes this step back."""
    op.drop_table("signing_keys")
    op.drop_table("api_keys")
