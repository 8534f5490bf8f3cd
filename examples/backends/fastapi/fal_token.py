"""`POST /api/fal/token`: what the official client's `tokenProvider` calls. Copy this file; see app.py for its use."""

import logging
import os
from collections.abc import Callable
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, Depends, HTTPException, Response
from pydantic import BaseModel

# What your users may open. The browser chooses among these and never beyond them.
ALLOWED_APPS = ("fal-ai/fast-lcm-diffusion/realtime", "fal-ai/fast-lcm-diffusion/image-to-image/realtime")
TOKEN_S = 120
SESSION_MAX_S = 900

log = logging.getLogger("uvicorn.error")
# trust_env off: no proxy or .netrc from the environment gets to see the key. Redirects are not followed.
authsvc = httpx.AsyncClient(
    base_url=os.environ["AUTHSVC_URL"],
    headers={"Authorization": f"Key {os.environ['AUTHSVC_KEY']}"},
    timeout=5,
    trust_env=False,
)


class TokenRequest(BaseModel):
    """What the browser asks for."""

    app: str


def token_route(current_user_id: Callable[..., str | None]) -> APIRouter:
    """The route, for an application whose dependency `current_user_id` says who is logged in."""
    router = APIRouter()

    # A dependency, so that it is asked before the body is read.
    def require_user(user_id: Annotated[str | None, Depends(current_user_id)]) -> str:
        if user_id is None:
            raise HTTPException(401, "Log in first.", {"Cache-Control": "no-store"})
        return user_id

    @router.post("/api/fal/token")
    async def token(body: TokenRequest, user_id: Annotated[str, Depends(require_user)], response: Response) -> str:
        if body.app not in ALLOWED_APPS:
            raise HTTPException(403, "This app is not offered here.")
        response.headers["Cache-Control"] = "no-store"
        return await mint(body.app, user_id)

    return router


async def mint(app: str, user_id: str) -> str:
    """A token that opens `app` and nothing else, in this user's name."""
    asked = {"allowed_apps": [app], "duration": TOKEN_S, "subject": user_id, "max_session_s": SESSION_MAX_S}
    return str((await _ask("/tokens/realtime", asked)).json()["token"])


async def revoke(user_id: str) -> None:
    """Ends every token and every open socket of a user: call it at logout."""
    await _ask("/tokens/revoke", {"subject": user_id})


async def _ask(path: str, body: dict[str, Any]) -> httpx.Response:
    """Asks authsvc. What it says when it refuses is for your log, not for the browser."""
    try:
        answer = await authsvc.post(path, json=body)
    except httpx.HTTPError as error:
        log.error("authsvc %s: %s", path, type(error).__name__)
        raise HTTPException(503, "Pictures are not available just now.", {"Retry-After": "5"}) from None
    if answer.status_code in (429, 503):
        wait = answer.headers.get("Retry-After", "")
        raise HTTPException(503, "Pictures are busy just now.", {"Retry-After": wait if wait.isdecimal() else "5"})
    if not answer.is_success:  # the key, its scope or this file is wrong; it is never the visitor's fault
        log.error("authsvc %s: status %d, %s", path, answer.status_code, answer.headers.get("X-Fal-Error-Type"))
        raise HTTPException(502, "Pictures are not available.")
    return answer
