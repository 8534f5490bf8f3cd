"""The tables. Times are unix seconds."""

from enum import StrEnum

from sqlalchemy import JSON, Enum, Index, LargeBinary, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    """Base of every table; Alembic compares its metadata with the database."""


class ApiKey(Base):
    """A key that may mint tokens for `apps`. Its secret is not here, only the secret's SHA-256."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    apps: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[int]
    revoked_at: Mapped[int | None]


class KeyState(StrEnum):
    """Where a signing key is in its life; every state is published, `RETIRED` until its tokens have expired."""

    NEXT = "next"
    CURRENT = "current"
    RETIRED = "retired"


class SigningKeyRow(Base):
    """A signing key. `private_pem` is erased when the key retires: nothing needs it any more."""

    __tablename__ = "signing_keys"
    __table_args__ = (
        # At most one next and one current key, whatever processes race.
        Index("one_active_key_a_state", "state", unique=True, sqlite_where=text("state != 'retired'")),
    )

    kid: Mapped[str] = mapped_column(String(43), primary_key=True)
    state: Mapped[KeyState] = mapped_column(
        Enum(
            KeyState,
            native_enum=False,
            create_constraint=True,
            name="key_state",
            values_callable=lambda states: [state.value for state in states],
        )
    )
    x: Mapped[str] = mapped_column(String(43))
    private_pem: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[int]
    activated_at: Mapped[int | None]
    retired_at: Mapped[int | None]
