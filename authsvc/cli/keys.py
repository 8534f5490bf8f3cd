"""`authsvc keys`: the API keys."""

import time
from typing import Any

import click

from authsvc import api_keys
from authsvc.cli.config import load_settings
from authsvc.cli.output import example, json_option, print_json, print_table, utc
from authsvc.installation import open_database
from authsvc.models import ApiKey


@click.group()
def keys() -> None:
    """API keys: who may mint, and for which apps."""


@keys.command(
    epilog=example('keys create --name "my backend" --apps fal-ai/fast-lcm-diffusion', 'keys create --apps "*"')
)
@click.option("--name", default="", help="What the key is for.")
@click.option("--apps", multiple=True, required=True, help="alias, owner/alias, a full path, or * (repeatable).")
@json_option
def create(name: str, apps: tuple[str, ...], as_json: bool) -> None:
    """Create a key and print it, this once, as id:secret."""
    if len(name) > api_keys.NAME_MAX_CHARS:
        raise click.BadParameter(f"at most {api_keys.NAME_MAX_CHARS} characters", param_hint="--name")
    try:
        with open_database(load_settings()) as database, database.writing() as session:
            key, credential = api_keys.create(session, name=name, apps=apps, now=time.time())
    except api_keys.InvalidScope as error:
        raise click.BadParameter(str(error), param_hint="--apps") from None
    if as_json:
        print_json({"key": str(credential), **_described(key)})
    else:
        click.echo(credential)
        click.echo("Keep it safe: it is not shown again.", err=True)


@keys.command(name="list", epilog=example("keys list"))
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys, without their secrets."""
    with open_database(load_settings()) as database, database.reading() as session:
        found = api_keys.listing(session)
    if as_json:
        print_json({"keys": [_described(key) for key in found]})
    else:
        print_table(
            ("id", "name", "apps", "created", "revoked"),
            ((key.id, key.name, ",".join(key.apps), utc(key.created_at), utc(key.revoked_at)) for key in found),
        )


@keys.command(epilog=example("keys revoke lcmk_0123456789abcdef01234567"))
@click.argument("key_id")
@json_option
def revoke(key_id: str, as_json: bool) -> None:
    """Revoke a key: it mints no more. Tokens that it minted stay good until they expire."""
    with open_database(load_settings()) as database, database.writing() as session:
        key = api_keys.revoke(session, key_id, now=time.time())
    if key is None:
        raise click.ClickException("there is no key with this id; `keys list` shows the ids")
    if as_json:
        print_json(_described(key))
    else:
        click.echo(f"{key.id} is revoked since {utc(key.revoked_at)}")


def _described(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "apps": key.apps,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
