"""`authsvc keys`: the API keys. What is printed as JSON is what the HTTP API answers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click
from sqlalchemy.orm import Session

from authsvc.cli.config import load_settings, open_existing
from authsvc.cli.key_options import Duration, body, key_options
from authsvc.cli.output import example, json_option, print_json, print_table, utc
from authsvc.domain import api_keys
from authsvc.installation import open_database
from authsvc.ledger.audit import COMMAND_LINE
from schemas import limits
from schemas.keys import Key, KeyChanges, KeyRequest, KeyWithSecret, Role


@click.group()
def keys() -> None:
    """API keys: who may mint, for which apps and how much; who may administer; who may report."""


@keys.command(
    epilog=example(
        'keys create --name "my backend" --apps fal-ai/fast-lcm-diffusion --expires-in 90d',
        'keys create --apps "*"',
        "keys create --role admin --name me",
    )
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice([role.value for role in Role]),
    help="Default: mint (repeatable).",
)
@key_options
@json_option
def create(as_json: bool, **options: Any) -> None:
    """Create a key and print it, this once, as id:secret. One with the role mint needs --apps."""
    request = body(KeyRequest, options)
    try:
        with open_database(load_settings()) as database, database.writing() as session:
            created = api_keys.create(session, now=time.time(), actor=COMMAND_LINE, **dict(request))
    except api_keys.InvalidScope as error:
        raise click.BadParameter(str(error), param_hint="--apps") from None
    _print_with_secret(api_keys.described_with_secret(*created), as_json)


@keys.command(name="list", epilog=example("keys list"))
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys, without their secrets."""
    with open_existing(load_settings()) as database, database.reading() as session:
        found = api_keys.described_listing(session)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_table(
        ("id", "name", "roles", "apps", "created", "expires", "revoked"),
        (
            (
                key.id,
                key.name,
                ",".join(key.roles),
                ",".join(key.apps),
                utc(key.created_at),
                utc(key.expires_at),
                utc(key.revoked_at),
            )
            for key in found.keys
        ),
    )


@keys.command(epilog=example("keys show lcmk_0123456789abcdef01234567"))
@click.argument("key_id")
@json_option
def show(key_id: str, as_json: bool) -> None:
    """Show a key, without its secret."""
    with open_existing(load_settings()) as database, database.reading() as session, _failures():
        _print_key(api_keys.described(api_keys.get(session, key_id)), as_json)


@keys.command(
    epilog=example(
        "keys change lcmk_0123456789abcdef01234567 --rate-per-minute 600 --max-pixels 262144",
        "keys change lcmk_0123456789abcdef01234567 --expires-in none",
    )
)
@click.argument("key_id")
@key_options
@json_option
def change(key_id: str, as_json: bool, **options: Any) -> None:
    """Change what is given, from the next request on; `none` takes a limit away. Minted tokens stay as they are."""
    changes = body(KeyChanges, options)
    if not changes.model_fields_set:
        raise click.UsageError("say what to change, for example --rate-per-minute 600")
    with _changing() as session:
        changed = api_keys.change(session, key_id, changes, now=time.time(), actor=COMMAND_LINE)
    _print_key(api_keys.described(changed), as_json)


@keys.command(epilog=example("keys revoke lcmk_0123456789abcdef01234567"))
@click.argument("key_id")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """Revoke a key for good, with every token that it minted: sockets that those opened are closed."""
    with _changing() as session:
        key = api_keys.described(api_keys.revoke(session, key_id, now=time.time(), actor=COMMAND_LINE))
    if as_json:
        print_json(key.model_dump(mode="json"))
    else:
        click.echo(f"{key.id} is revoked since {utc(key.revoked_at)}")


@keys.command(epilog=example("keys rotate lcmk_0123456789abcdef01234567 --grace 1d"))
@click.argument("key_id")
@click.option("--grace", "grace_s", type=Duration(), default="0", help="For how long the old secret still works.")
@json_option
def rotate(key_id: str, grace_s: int, as_json: bool) -> None:
    """Give a key a new secret and print it, this once. The id stays, and tokens stay good."""
    if grace_s > limits.KEY_GRACE_MAX_S:
        raise click.BadParameter(f"at most {limits.KEY_GRACE_MAX_S} s", param_hint="--grace")
    with _changing() as session:
        rotated = api_keys.rotate(session, key_id, now=time.time(), grace_s=grace_s, actor=COMMAND_LINE)
    _print_with_secret(api_keys.described_with_secret(*rotated), as_json)


@contextmanager
def _changing() -> Iterator[Session]:
    """A session that writes; what it cannot do is told in one line."""
    with open_existing(load_settings()) as database, _failures(), database.writing() as session:
        yield session


@contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except api_keys.NoSuchKey:
        raise click.ClickException("there is no key with this id; `keys list` shows the ids") from None
    except api_keys.RevokedKey:
        raise click.ClickException("the key is revoked, and stays so; create another one") from None


def _print_with_secret(key: KeyWithSecret, as_json: bool) -> None:
    if as_json:
        print_json(key.model_dump(mode="json"))
    else:
        click.echo(key.key)
        click.echo("Keep it safe: it is not shown again.", err=True)


def _print_key(key: Key, as_json: bool) -> None:
    if as_json:
        print_json(key.model_dump(mode="json"))
        return
    shown = key.model_dump(mode="json") | {
        "roles": ",".join(key.roles),
        "apps": ",".join(key.apps),
        "limits": ",".join(f"{name}={value}" for name, value in key.limits.model_dump(exclude_none=True).items()),
        **{name: utc(value) for name, value in dict(key).items() if name.endswith(("_at", "_until"))},
    }
    print_table(
        ("field", "value"), ((name, "-" if value in (None, "") else str(value)) for name, value in shown.items())
    )
