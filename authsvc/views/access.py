"""Who calls: the API key in the Authorization header."""

from flask import g, request
from sqlalchemy.orm import Session

from authsvc import api_keys
from authsvc.errors import MALFORMED_AUTHORIZATION, UNKNOWN_KEY, Unauthorized
from authsvc.models import ApiKey


def require_key(session: Session) -> ApiKey:
    """The key that the current request presents.

    Raises:
        Unauthorized: there is none, or it is unknown, wrong or revoked; the last three look alike.
    """
    credential = api_keys.parse_authorization(request.headers.get("Authorization", ""))
    if credential is None:
        raise Unauthorized(MALFORMED_AUTHORIZATION)
    key = api_keys.authenticate(session, credential)
    if key is None:
        raise Unauthorized(UNKNOWN_KEY)
    g.key_id = key.id
    return key
