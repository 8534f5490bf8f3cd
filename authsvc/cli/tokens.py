"""`authsvc tokens`: minting, checking and revoking by hand."""

import sys
import time
from collections.abc import Callable
from typing import Any

import click
from pydantic import ValidationError

from authsvc.cli.config import load_settings
from authsvc.cli.output import example, json_option, print_json, utc
from authsvc.domain import revoking, signing_keys
from authsvc.domain.issuing import Grant, issue, recorded
from authsvc.domain.revocations import StillToCome
from authsvc.installation import open_database
from authsvc.ledger import audit
from authsvc.store.database import Database
from schemas import limits
from schemas.events import EventKind
from schemas.revocation import RevocationRequest
from schemas.tokens import PinnedLimits, TokenClaims, TokenRequest
from tokens.errors import TokenError, TokenTooLarge
from tokens.scope import ANY_APP


def _limit_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each limit that a token can carry."""
    for name, field in reversed(PinnedLimits.model_fields.items()):
        command = click.option(f"--{name.replace('_', '-')}", type=click.INT, help=field.description)(command)
    return command


@click.group()
def tokens() -> None:
    """Tokens: mint one without an API key, see what one says, or revoke some."""


@tokens.command(epilog=example("tokens mint --apps fal-ai/fast-lcm-diffusion --duration 120"))
@click.option("--apps", multiple=True, required=True, help="alias, owner/alias or a full path (repeatable).")
@click.option("--duration", default=limits.TOKEN_DURATION_DEFAULT_S, show_default=True, help="Seconds.")
@click.option("--subject", default="operator", show_default=True, help="`sub`: in whose name.")
@click.option("--one-time", is_flag=True, help="The token opens one socket, and no second one.")
@_limit_options
@json_option
def mint(apps: tuple[str, ...], as_json: bool, **members: Any) -> None:
    """Mint a token. Whoever can read the database may: no API key is asked for."""
    settings = load_settings()
    request = _request(allowed_apps=list(apps), **members)
    if request.duration_s > settings.token_max_duration_s:
        raise click.BadParameter(f"at most {settings.token_max_duration_s} s", param_hint="--duration")
    grant = Grant(subject=audit.COMMAND_LINE, apps=[ANY_APP])
    try:
        with open_database(settings) as database, database.reading() as session:
            now = time.time()
            signer = signing_keys.current(session)
            issued = issue(signer, settings, grant, request, duration_s=request.duration_s, now=now)
            _record(database, issued.claims, now)
    except TokenTooLarge as error:
        raise click.BadParameter(error.description, param_hint="--apps") from None
    if as_json:
        print_json({"token": issued.token, "claims": issued.claims.model_dump(exclude_none=True)})
    else:
        click.echo(issued.token)


def _request(**members: Any) -> TokenRequest:
    """Reads the options by the same rules as a body."""
    try:
        return TokenRequest.model_validate(members)
    except ValidationError as error:
        first = error.errors()[0]
        member = str(first["loc"][0]) if first["loc"] else "allowed_apps"
        option = "apps" if member == "allowed_apps" else member.replace("_", "-")
        raise click.BadParameter(first["msg"], param_hint=f"--{option}") from None


def _record(database: Database, claims: TokenClaims, now: float) -> None:
    with database.counting() as session:
        audit.record(session, EventKind.MINTED, now=now, actor=audit.COMMAND_LINE, **recorded(claims))


@tokens.command(epilog=example("tokens check - < token.txt"))
@click.argument("token")
@json_option
def check(token: str, as_json: bool) -> None:
    """Verify a token as the runner does and show its claims. TOKEN may be - for standard input."""
    settings = load_settings()
    text = sys.stdin.read().strip() if token == "-" else token  # noqa: S105 - a dash
    try:
        with open_database(settings) as database, database.reading() as session:
            claims = revoking.good_claims(session, settings, text, now=time.time())
    except TokenError as error:
        if as_json:
            print_json({"valid": False, "code": error.code, "description": error.description})
        raise click.ClickException(f"refused ({error.code}): {error.description}") from None
    if as_json:
        print_json({"valid": True, "claims": claims.model_dump(exclude_none=True)})
    else:
        click.echo(f"good until {utc(claims.exp)} for {', '.join(claims.apps)} (sub {claims.sub}, jti {claims.jti})")


@tokens.command(
    epilog=example("tokens revoke --subject user-42", "tokens revoke --jti JTI", "tokens revoke --token - < token.txt")
)
@click.option("--jti", help="One token, by its name.")
@click.option("--token", help="One token, expired or not; - reads it from standard input.")
@click.option("--key", "key_id", help="Every token that the key of this id minted so far; the key stays good.")
@click.option("--subject", help="Every token for this `sub` so far; with --key those that the key minted.")
@click.option("--issued-before", type=int, help="Unix seconds, itself included: only tokens minted up to then.")
@json_option
def revoke(as_json: bool, **named: str | int | None) -> None:
    """Revoke tokens: runners refuse them and close their sockets within a second."""
    settings = load_settings()
    if named["token"] == "-":  # noqa: S105 - a dash
        named["token"] = sys.stdin.read().strip()
    try:
        request = RevocationRequest.model_validate(named)
        with open_database(settings) as database, database.writing() as session:
            done = revoking.revoke(session, settings, request, now=time.time(), actor=audit.COMMAND_LINE)
    except ValidationError as error:
        raise click.UsageError(_revocation_fault(error)) from None
    except StillToCome:
        raise click.BadParameter("must not be in the future", param_hint="--issued-before") from None
    if as_json:
        print_json(done.model_dump(mode="json"))
    elif done.revoked is None:
        click.echo("nothing to revoke: no token that could still be good was named")
    else:
        click.echo(f"revoked; the entry is kept until {utc(done.revoked.expires_at)}")


def _revocation_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    name, message = (str(first["loc"][0]), message) if first["loc"] else message.partition(": ")[::2]
    return f"--{'key' if name == 'key_id' else name.replace('_', '-')}: {message}"
