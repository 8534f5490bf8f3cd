"""`authsvc signing-keys`: the keys that sign tokens."""

import time
from typing import Any

import click

from authsvc import signing_keys as ring
from authsvc.cli.config import load_settings
from authsvc.cli.output import example, json_option, print_json, print_table, utc
from authsvc.installation import open_database
from authsvc.models import SigningKeyRow


@click.group(name="signing-keys")
def signing_keys() -> None:
    """Signing keys: next, current and retired."""


@signing_keys.command(epilog=example("signing-keys rotate"))
@json_option
def rotate(as_json: bool) -> None:
    """Sign with the next key from now on. Tokens of the old key stay good until they expire."""
    with open_database(load_settings()) as database, database.writing() as session:
        row = ring.rotate(session, now=time.time())
    if as_json:
        print_json(_described(row))
    else:
        click.echo(f"{row.kid} is the current key")


@signing_keys.command(name="list", epilog=example("signing-keys list"))
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys; only their public halves."""
    with open_database(load_settings()) as database, database.reading() as session:
        found = ring.listing(session)
    if as_json:
        print_json({"signing_keys": [_described(row) for row in found]})
    else:
        print_table(
            ("kid", "state", "created", "activated", "retired"),
            ((row.kid, row.state, utc(row.created_at), utc(row.activated_at), utc(row.retired_at)) for row in found),
        )


def _described(row: SigningKeyRow) -> dict[str, Any]:
    return {
        "kid": row.kid,
        "state": row.state,
        "created_at": row.created_at,
        "activated_at": row.activated_at,
        "retired_at": row.retired_at,
    }
