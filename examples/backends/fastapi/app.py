"""A FastAPI application with a login of its own. In yours, keep your login and the two lines about `fal_token`."""

import hmac
import os
from typing import Annotated

from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware

import fal_token

# Your user table. The id goes into tokens and into the runner's log: opaque, not a mail address.
USERS = {"ada": ("user-1", os.environ["LOGIN_PASSWORD"])}


class Login(BaseModel):
    """What the login form sends."""

    username: str
    password: str


def refuse_foreign_pages(sec_fetch_site: Annotated[str, Header()] = "same-origin") -> None:
    """Against forged requests: browsers say where a request comes from, and let no page lie about it."""
    if sec_fetch_site != "same-origin":
        raise HTTPException(403, "This request did not come from this site's own page.")


def current_user_id(request: Request) -> str | None:
    """Who is logged in. The cookie is signed, and the user must still be one."""
    user_id = request.session.get("user_id")
    return user_id if user_id in {known for known, _ in USERS.values()} else None


app = FastAPI(dependencies=[Depends(refuse_foreign_pages)])
app.add_middleware(
    SessionMiddleware,
    secret_key=os.environ["SESSION_SECRET"],
    same_site="lax",
    https_only=os.environ.get("COOKIE_INSECURE") != "1",
    max_age=8 * 3600,
)
app.include_router(fal_token.token_route(current_user_id))


@app.post("/api/login", status_code=204)
def log_in(body: Login, request: Request) -> Response:
    """Checks name and password and starts a session."""
    user_id, right = USERS.get(body.username, (None, ""))
    if not hmac.compare_digest(body.password.encode(), right.encode()) or user_id is None:
        raise HTTPException(401, "That name and password do not go together.")
    request.session.clear()
    request.session["user_id"] = user_id
    return Response(status_code=204)


@app.post("/api/logout", status_code=204)
async def log_out(request: Request) -> Response:
    """Ends the session, and with it the user's tokens and open sockets."""
    user_id = current_user_id(request)
    request.session.clear()
    if user_id is not None:
        await fal_token.revoke(user_id)
    return Response(status_code=204)
