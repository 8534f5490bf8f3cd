"""The tables. Times are unix seconds."""

from enum import StrEnum
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Double, Enum, Index, Integer, LargeBinary, String, Text, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Seconds: Final = BigInteger().with_variant(Integer(), "sqlite")
"""Unix time. An INTEGER of PostgreSQL ends in 2038; SQLite's does not."""


class Base(DeclarativeBase):
    """Base of every table; Alembic compares its metadata with the database."""


class ApiKey(Base):
    """A key that may mint tokens for `apps`, or do what its other roles say.

    Its secret is not here, only the secret's SHA-256. After a rotation the previous secret works until
    `previous_valid_until`.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    secret_sha256: Mapped[bytes] = mapped_column(LargeBinary(32))
    apps: Mapped[list[str]] = mapped_column(JSON)
    created_at: Mapped[int] = mapped_column(Seconds)
    revoked_at: Mapped[int | None] = mapped_column(Seconds)
    roles: Mapped[list[str]] = mapped_column(JSON, server_default='["mint"]')
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    rate_per_minute: Mapped[int | None] = mapped_column(BigInteger)
    daily_quota: Mapped[int | None] = mapped_column(BigInteger)
    limits: Mapped[dict[str, int]] = mapped_column(JSON, server_default="{}")
    previous_secret_sha256: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    previous_valid_until: Mapped[int | None] = mapped_column(BigInteger)


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
        Index(
            "one_active_key_a_state",
            "state",
            unique=True,
            sqlite_where=text("state != 'retired'"),
            postgresql_where=text("state != 'retired'"),
        ),
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
    created_at: Mapped[int] = mapped_column(Seconds)
    activated_at: Mapped[int | None] = mapped_column(Seconds)
    retired_at: Mapped[int | None] = mapped_column(Seconds)


class Revocation(Base):
    """Tokens that are good no more; see `schemas.revocation.RevokedEntry`."""

    __tablename__ = "revocations"

    # Readers send it back in `after`, where anybody may write any number: an INTEGER of PostgreSQL would not take it.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    issued_before: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


class RedeemedToken(Base):
    """A one-time token that has opened its socket. The primary key lets exactly one of many win."""

    __tablename__ = "redeemed_tokens"

    jti: Mapped[str] = mapped_column(String(64), primary_key=True)
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


class DailyMints(Base):
    """How many tokens a key with a quota has minted in a day (UTC, YYYY-MM-DD); of `revocations/KEY`, revoked."""

    __tablename__ = "daily_mints"

    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    minted: Mapped[int] = mapped_column(BigInteger)


class AuditEventRow(Base):
    """An event of the audit log: written once, never changed. It never holds a token or a secret."""

    __tablename__ = "audit_events"

    # SQLite numbers the rows of an INTEGER key alone.
    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer(), "sqlite"), primary_key=True)
    event_id: Mapped[str] = mapped_column(String(36), unique=True)
    kind: Mapped[str] = mapped_column(String(16))
    at: Mapped[int] = mapped_column(BigInteger, index=True)
    actor: Mapped[str | None] = mapped_column(String(64))
    key_id: Mapped[str | None] = mapped_column(String(64), index=True)
    subject: Mapped[str | None] = mapped_column(String(128))
    jti: Mapped[str | None] = mapped_column(String(64))
    app: Mapped[str | None] = mapped_column(String(200))
    address: Mapped[str | None] = mapped_column(String(64))
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)


class DailyUsage(Base):
    """What one key did on one app in one day (UTC, YYYY-MM-DD): the audit log added up."""

    __tablename__ = "daily_usage"

    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    app: Mapped[str] = mapped_column(String(200), primary_key=True)
    tokens: Mapped[int] = mapped_column(BigInteger, server_default="0")
    refused: Mapped[int] = mapped_column(BigInteger, server_default="0")
    connections: Mapped[int] = mapped_column(BigInteger, server_default="0")
    seconds: Mapped[float] = mapped_column(Double, server_default="0")
    images: Mapped[int] = mapped_column(BigInteger, server_default="0")
    pixels: Mapped[int] = mapped_column(BigInteger, server_default="0")
