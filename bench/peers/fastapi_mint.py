"""The same work as authsvc's `POST /tokens/realtime`, as a FastAPI developer writes it after the documentation.

A session by `Depends`, an API key found in SQLite through SQLAlchemy, a fixed window of `limits` (what slowapi does),
pydantic in and out, a token signed by PyJWT with a key that was read once. Runs in .venv-peers; imports nothing of
ours. It does less than authsvc: no audit log, no daily quota, no pinned limits, no metrics, no key rotation.
"""

import hashlib
import hmac
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from sqlite3 import Connection
from typing import Annotated

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from pydantic import BaseModel, Field
from sqlalchemy import JSON, String, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

FOLDER = Path(os.environ["PEER_FOLDER"])
KID = "bench"
SIGNING_KEY = load_pem_private_key((FOLDER / "key.pem").read_bytes(), password=None)
PER_MINUTE = RateLimitItemPerMinute(int(os.environ["PEER_RATE"]))
AUDIENCE, ISSUER = "runner", "authsvc"

engine = create_engine(f"sqlite:///{FOLDER / 'peer.sqlite3'}", connect_args={"check_same_thread": False})
limiter = FixedWindowRateLimiter(MemoryStorage())
app = FastAPI()


@event.listens_for(engine, "connect")
def configure(connection: Connection, _: object) -> None:
    connection.execute("PRAGMA journal_mode = WAL")


class Base(DeclarativeBase):
    pass


class ApiKey(Base):
    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    secret_sha256: Mapped[bytes]
    apps: Mapped[list[str]] = mapped_column(JSON)
    roles: Mapped[list[str]] = mapped_column(JSON)
    expires_at: Mapped[int | None]
    revoked_at: Mapped[int | None]


class TokenRequest(BaseModel):
    allowed_apps: list[Annotated[str, Field(pattern=r"^[\w.-]+(/[\w.-]+)*$", max_length=200)]] = Field(min_length=1)
    duration: int = Field(default=120, ge=1, le=3600)


class TokenResponse(BaseModel):
    token: str
    expires_at: int
    expires_in: int
    allowed_apps: list[str]
    jti: str


def get_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


SessionDep = Annotated[Session, Depends(get_session)]


def current_key(session: SessionDep, authorization: Annotated[str, Header()] = "") -> ApiKey:
    scheme, _, credential = authorization.partition(" ")
    key_id, _, secret = credential.partition(":")
    key = session.get(ApiKey, key_id)
    digest = hashlib.sha256(secret.encode()).digest()
    is_right = hmac.compare_digest(digest, key.secret_sha256 if key else bytes(32))
    now = time.time()
    if (
        scheme.lower() != "key"
        or key is None
        or not is_right
        or key.revoked_at is not None
        or (key.expires_at is not None and key.expires_at <= now)
    ):
        raise HTTPException(401, "No user found for Key ID and Secret", {"WWW-Authenticate": "Key"})
    if "mint" not in key.roles:
        raise HTTPException(403, "The key may not mint")
    return key


KeyDep = Annotated[ApiKey, Depends(current_key)]


def covers(granted: str, asked: str) -> bool:
    return granted == "*" or asked == granted or asked.startswith(f"{granted}/")


@app.post("/tokens/realtime", status_code=201)
def mint(body: TokenRequest, key: KeyDep, response: Response) -> TokenResponse:
    if not limiter.hit(PER_MINUTE, key.id):
        raise HTTPException(429, "Too many requests", {"Retry-After": "60"})
    for asked in body.allowed_apps:
        if not any(covers(granted, asked) for granted in key.apps):
            raise HTTPException(403, f"The key may not mint for {asked}")
    now = int(time.time())
    jti = uuid.uuid4().hex
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": key.id,
        "jti": jti,
        "iat": now,
        "nbf": now,
        "exp": now + body.duration,
        "apps": body.allowed_apps,
        "max_session_s": 3600,
        "client_id": key.id,
    }
    token = jwt.encode(claims, SIGNING_KEY, algorithm="EdDSA", headers={"kid": KID, "typ": "rt+jwt"})
    response.headers["Cache-Control"] = "no-store"
    return TokenResponse(
        token=token, expires_at=claims["exp"], expires_in=body.duration, allowed_apps=body.allowed_apps, jti=jti
    )
