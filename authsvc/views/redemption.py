"""`POST /tokens/redeem`: a runner asks whether it may open a socket with a one-time token."""

from typing import Any, Final

from flask import Blueprint, Response, request
from werkzeug.exceptions import Conflict

from authsvc.context import context
from authsvc.domain import redemptions, revoking
from authsvc.errors import Unauthorized
from authsvc.views.bodies import read_json
from httpbase.errors import InvalidBody
from schemas.openapi import Answer, Operation
from schemas.tokens import TokenRedemption
from tokens.errors import TokenError

blueprint = Blueprint("redemption", __name__)


class TokenRefused(Unauthorized):
    """401 for the token in the body, which is the only credential here (RFC 6750 §3)."""

    def get_headers(self, *_: Any, **__: Any) -> list[tuple[str, str]]:
        """Says what was wrong with it."""
        return [("WWW-Authenticate", 'Bearer realm="authsvc", error="invalid_token"')]


@blueprint.post("/tokens/redeem")
def redeem() -> Response:
    """Uses a token up. Who holds it may do that: it could as well open a socket with it."""
    app, now = context(), context().clock()
    token = read_json(TokenRedemption).token
    try:
        with app.database.reading() as session:
            claims = revoking.good_claims(session, app.settings, token, now=now)
    except TokenError as error:
        raise TokenRefused(error.description) from None
    if not claims.one_time:
        raise InvalidBody.field("token", "is not a one-time token: mint one with one_time, or do not redeem it")
    with app.database.counting(durable=True) as session:
        has_won = redemptions.redeem(session, claims, now=now, address=request.remote_addr)
    if not has_won:
        raise Conflict("The token was used already. Mint a new one.")
    return Response(status=204, headers={"Cache-Control": "no-store"})


OPERATIONS: Final = (
    Operation(
        "POST",
        "/tokens/redeem",
        operation_id="redeemToken",
        summary="Use a one-time token up",
        description=(
            "Runners ask this at the handshake. The token is the credential: of all who redeem the same one, the "
            "first is answered with 204 and everybody else with 409."
        ),
        tags=("tokens",),
        request=TokenRedemption,
        request_example={"token": "eyJ…"},
        answers={204: Answer("The token was good, and opens nothing any more.")},
        problems=(401, 409, 413, 415, 422, 429, 503),
    ),
)
