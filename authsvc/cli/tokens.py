"""`authsvc tokens`: minting and checking by hand."""

import sys
import time

import click
from pydantic import ValidationError

from authsvc import signing_keys
from authsvc.cli.config import load_settings
from authsvc.cli.output import example, json_option, print_json, utc
from authsvc.installation import open_database
from authsvc.issuing import issue
from schemas import limits
from schemas.tokens import TokenRequest
from tokens.errors import TokenError, TokenTooLarge
from tokens.keys import key_id
from tokens.scope import ANY_APP
from tokens.verify import verify


@click.group()
def tokens() -> None:
    """Tokens: mint one without an API key, or see what one says."""


@tokens.command(epilog=example("tokens mint --apps fal-ai/fast-lcm-diffusion --duration 120"))
@click.option("--apps", multiple=True, required=True, help="alias, owner/alias or a full path (repeatable).")
@click.option("--duration", default=limits.TOKEN_DURATION_DEFAULT_S, show_default=True, help="Seconds.")
@click.option("--subject", default="operator", show_default=True, help="`sub`: in whose name.")
@json_option
def mint(apps: tuple[str, ...], duration: int, subject: str, as_json: bool) -> None:
    """Mint a token. Whoever can read the database may: no API key is asked for."""
    settings = load_settings()
    request = _request(apps, duration)
    if request.duration_s > settings.token_max_duration_s:
        raise click.BadParameter(f"at most {settings.token_max_duration_s} s", param_hint="--duration")
    if not subject:
        raise click.BadParameter("must not be empty", param_hint="--subject")
    try:
        with open_database(settings) as database, database.reading() as session:
            issued = issue(
                session,
                settings,
                subject=subject,
                granted=[ANY_APP],
                requested=request.apps,
                duration_s=request.duration_s,
                now=time.time(),
            )
    except TokenTooLarge as error:
        raise click.BadParameter(error.description, param_hint="--apps") from None
    if as_json:
        print_json({"token": issued.token, "claims": issued.claims.model_dump(exclude_none=True)})
    else:
        click.echo(issued.token)


def _request(apps: tuple[str, ...], duration: int) -> TokenRequest:
    """Reads the options by the same rules as a body."""
    try:
        return TokenRequest(allowed_apps=list(apps), duration=duration)
    except ValidationError as error:
        first = error.errors()[0]
        option = "--duration" if "duration" in first["loc"] else "--apps"
        raise click.BadParameter(first["msg"], param_hint=option) from None


@tokens.command(epilog=example("tokens check - < token.txt"))
@click.argument("token")
@json_option
def check(token: str, as_json: bool) -> None:
    """Verify a token as the runner does and show its claims. TOKEN may be - for standard input."""
    settings = load_settings()
    text = sys.stdin.read().strip() if token == "-" else token  # noqa: S105 - a dash
    now = time.time()
    with open_database(settings) as database, database.reading() as session:
        keys = {key_id(key): key for key in signing_keys.published(session, now=now)}
    try:
        claims = verify(text, keys, issuer=settings.issuer, audience=settings.audience, now=now)
    except TokenError as error:
        if as_json:
            print_json({"valid": False, "code": error.code, "description": error.description})
        raise click.ClickException(f"refused ({error.code}): {error.description}") from None
    if as_json:
        print_json({"valid": True, "claims": claims.model_dump(exclude_none=True)})
    else:
        click.echo(f"good until {utc(claims.exp)} for {', '.join(claims.apps)} (sub {claims.sub}, jti {claims.jti})")
