"""Asks authsvc for tokens, and to revoke them. What goes wrong is said in words for the page, never with the key."""

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

import httpx
from pydantic import BaseModel, SecretStr, ValidationError

from schemas.errors import FieldError
from schemas.tokens import TokenResponse

logger = logging.getLogger(__name__)

TIMEOUT_S = 5.0


@dataclass
class MintError(Exception):
    """authsvc did not do it: `status` is for the page's browser, `detail` a sentence or a field list."""

    status: HTTPStatus
    detail: str | list[FieldError]
    retry_after: str | None = None


class Mint(Protocol):
    """Where tokens come from."""

    def mint(self, app: str, duration_s: int, subject: str) -> TokenResponse:
        """A token for `subject` that opens `app` alone, for `duration_s` seconds.

        Raises:
            MintError: authsvc refused, or could not be asked.
        """

    def revoke(self, subject: str) -> None:
        """Every token that was minted for `subject`: none opens a socket any more, and their sockets are closed.

        Raises:
            MintError: authsvc refused, or could not be asked.
        """

    def is_ready(self) -> bool:
        """Whether authsvc says that it can mint."""


class AuthsvcMint:
    """Mints at authsvc's `POST /tokens/realtime`, as a user's own backend does."""

    def __init__(self, authsvc_url: str, api_key: SecretStr) -> None:
        # trust_env off: a proxy or .netrc from the environment must not get to see the key.
        self._http = httpx.Client(base_url=authsvc_url, timeout=TIMEOUT_S, trust_env=False)
        self._api_key = api_key

    def mint(self, app: str, duration_s: int, subject: str) -> TokenResponse:
        """See `Mint.mint`."""
        body = {"allowed_apps": [app], "duration": duration_s, "subject": subject}
        return _token(self._post("/tokens/realtime", body))

    def revoke(self, subject: str) -> None:
        """See `Mint.revoke`."""
        self._post("/tokens/revoke", {"subject": subject})

    def close(self) -> None:
        """Close the connections that are kept for the next request."""
        self._http.close()

    def is_ready(self) -> bool:
        """See `Mint.is_ready`."""
        try:
            return self._http.get("/health/ready").is_success
        except httpx.HTTPError:
            return False

    def _post(self, path: str, body: dict[str, object]) -> httpx.Response:
        headers = {"Authorization": f"Key {self._api_key.get_secret_value()}"}
        try:
            answer = self._http.post(path, headers=headers, json=body)
        except httpx.HTTPError as error:
            logger.warning("authsvc could not be asked at %s: %s", path, type(error).__name__)
            raise MintError(HTTPStatus.SERVICE_UNAVAILABLE, "The token service does not answer.") from None
        if answer.is_success:
            return answer
        logger.warning("authsvc refused at %s with status %d", path, answer.status_code)
        raise _refusal(answer)


def _token(answer: httpx.Response) -> TokenResponse:
    try:
        return TokenResponse.model_validate_json(answer.content)
    except ValidationError:
        # `from None`: the validation error quotes its input, and that is a token.
        raise MintError(HTTPStatus.BAD_GATEWAY, "The token service gave an answer without a token.") from None


def _refusal(answer: httpx.Response) -> MintError:
    """What the page hears; 401 is about our key, not about the visitor, so it must not read as "log in"."""
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        return MintError(HTTPStatus.BAD_GATEWAY, "The token service does not accept this site's API key.")
    if answer.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return MintError(HTTPStatus.BAD_GATEWAY, "The token service failed.")
    return MintError(_known_status(answer.status_code), _detail(answer), retry_after=answer.headers.get("retry-after"))


def _known_status(code: int) -> HTTPStatus:
    """`code` when it is a client error that HTTP names; anything odder (a redirect) is a bad gateway."""
    named = code in HTTPStatus.__members__.values() and code >= HTTPStatus.BAD_REQUEST
    return HTTPStatus(code) if named else HTTPStatus.BAD_GATEWAY


class _Refusal(BaseModel):
    """The one member of authsvc's error body that the page shows: a sentence or a field list."""

    detail: str | list[FieldError]


def _detail(answer: httpx.Response) -> str | list[FieldError]:
    try:
        return _Refusal.model_validate_json(answer.content).detail
    except ValidationError:
        return "The token service refused."
