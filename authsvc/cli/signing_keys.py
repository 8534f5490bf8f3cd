"""`authsvc signing-keys`: the keys that sign tokens. What is printed as JSON is what the HTTP API answers."""

import time

import click

from authsvc.cli.config import load_settings
from authsvc.cli.output import example, json_option, print_json, print_table, utc
from authsvc.domain import signing_keys as ring
from authsvc.installation import open_database
from authsvc.ledger.audit import COMMAND_LINE
from schemas.keys import SigningKeyList


@click.group(name="signing-keys")
def signing_keys() -> None:
    """Signing keys: next, current and retired."""


@signing_keys.command(epilog=example("signing-keys rotate"))
@json_option
def rotate(as_json: bool) -> None:
    """Sign with the next key from now on. No token and no socket is harmed.

    Right after another rotation this waits for two seconds, until every runner has the next key.
    """
    with open_database(load_settings()) as database:
        try:
            row = ring.rotate_settled(database, clock=time.time, actor=COMMAND_LINE)
        except ring.TooManyRotations:
            raise click.ClickException("others rotate the keys at the same time; try again") from None
    if as_json:
        print_json(ring.described(row).model_dump(mode="json"))
    else:
        click.echo(f"{row.kid} is the current key")


@signing_keys.command(name="list", epilog=example("signing-keys list"))
@json_option
def list_keys(as_json: bool) -> None:
    """List the keys; only their public halves."""
    with open_database(load_settings()) as database, database.reading() as session:
        found = ring.described_listing(session)
    _print(found, as_json)


# A kid may begin with a dash, like an option.
@signing_keys.command(
    context_settings={"ignore_unknown_options": True},
    epilog=example("signing-keys revoke kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"),
)
@click.argument("kid")
@json_option
def revoke(kid: str, as_json: bool) -> None:
    """Revoke a key that leaked, with every token that it signed; one that was current or next is replaced.

    Users whose tokens it signed need new ones: to change keys without a leak, rotate. Write `--` before a KID that
    begins with `-h`.
    """
    with open_database(load_settings()) as database:
        try:
            with database.writing() as session:
                ring.revoke(session, kid, now=time.time(), actor=COMMAND_LINE)
                left = ring.described_listing(session)
        except ring.NoSuchSigningKey:
            raise click.ClickException("there is no key with this kid; `signing-keys list` shows them") from None
    _print(left, as_json)


def _print(found: SigningKeyList, as_json: bool) -> None:
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    print_table(
        ("kid", "state", "created", "activated", "retired"),
        (
            (key.kid, key.state, utc(key.created_at), utc(key.activated_at), utc(key.retired_at))
            for key in found.signing_keys
        ),
    )
