"""`authsvc audit` and `authsvc usage`: what happened, and what it adds up to."""

import time
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from pydantic import BaseModel, ValidationError

from authsvc.cli.config import load_settings
from authsvc.cli.output import example, json_option, print_json, print_table, utc
from authsvc.installation import open_database
from authsvc.ledger import audit as log
from authsvc.ledger import usage as sums
from schemas import limits
from schemas.events import AuditEvent, AuditQuery, EventKind, Pruned, UsageQuery

Query = TypeVar("Query", bound=BaseModel)
_DAY: Any = click.DateTime(["%Y-%m-%d"])


@click.group()
def audit() -> None:
    """The audit log."""


@audit.command(name="list", epilog=example("audit list --kind revoked", "audit list --key lcmk_… --limit 1000 --json"))
@click.option("--kind", type=click.Choice([kind.value for kind in EventKind]), help="Events of this kind.")
@click.option("--key", "key_id", help="Events that concern this key, by its id.")
@click.option("--subject", help="Events that concern this subject.")
@click.option("--jti", help="Events that concern this token, by its jti.")
@click.option("--from", "at_from", type=_DAY, help="Not before this day (UTC).")
@click.option("--to", "at_to", type=_DAY, help="Before this day (UTC).")
@click.option("--before", type=click.IntRange(1), help="Events with a smaller id: continues a list.")
@click.option("--limit", type=click.IntRange(1, limits.AUDIT_PAGE_MAX), default=100, show_default=True)
@json_option
def list_events(as_json: bool, at_from: datetime | None, at_to: datetime | None, **given: Any) -> None:
    """List events, newest first."""
    query = _query(AuditQuery, {**given, "from": _seconds(at_from), "to": _seconds(at_to, -1)})
    with open_database(load_settings()) as database, database.reading() as session:
        page = log.page(session, query)
    if as_json:
        print_json(page.model_dump(mode="json"))
        return
    print_table(
        ("id", "time", "kind", "actor", "key", "subject", "jti", "app", "address", "detail"), map(_cells, page.events)
    )
    if page.next is not None:
        click.echo(f"There are more: --before {page.next}", err=True)


@audit.command(epilog=example("audit prune --before 2026-01-01"))
@click.option("--before", type=_DAY, required=True, help="Delete events of the days before this one (UTC).")
@json_option
def prune(before: datetime, as_json: bool) -> None:
    """Delete old events; the service does so by itself, see AUTHSVC_AUDIT_RETENTION_DAYS. Usage stays."""
    seconds = _seconds(before)
    assert seconds is not None
    deleted = 0
    with open_database(load_settings()) as database:
        while True:
            with database.counting() as session:
                some = log.prune(session, before=seconds)
            deleted += some
            if some < log.PRUNE_BATCH:
                break
        with database.counting(durable=True) as session:
            detail = {"deleted": deleted, "before": seconds}
            log.record(session, EventKind.PRUNED, now=time.time(), actor=log.COMMAND_LINE, detail=detail)
    if as_json:
        print_json(Pruned(deleted=deleted, before=seconds).model_dump())
    else:
        click.echo(f"{deleted} events from before {before:%Y-%m-%d} are deleted")


@click.command(epilog=example("usage --from 2026-01-01 --to 2026-01-31", "usage --format csv > usage.csv"))
@click.option("--from", "first_day", type=_DAY, help="The first day (UTC). By default 30 days before the last.")
@click.option("--to", "last_day", type=_DAY, help="The last day (UTC). By default today.")
@click.option("--key", "key_id", help="Usage of this key, by its id.")
@click.option("--app", help="Usage of this app, owner/alias.")
@click.option("--after", help="Rows behind this one: continues a list.")
@click.option("--limit", type=click.IntRange(1, limits.USAGE_PAGE_MAX), default=1000, show_default=True)
@click.option("--format", "form", type=click.Choice(["table", "csv"]), default="table", show_default=True)
@json_option
def usage(as_json: bool, form: str, first_day: datetime | None, last_day: datetime | None, **given: Any) -> None:
    """Show what each key used on each app in each day."""
    days = {"from": first_day and first_day.date(), "to": last_day and last_day.date()}
    query = _query(UsageQuery, {**given, **days})
    with open_database(load_settings()) as database, database.reading() as session:
        found = sums.page(session, query, now=time.time())
    if as_json:
        print_json(found.model_dump())
        return
    if form == "csv":
        click.echo(sums.csv_text(found.usage), nl=False)
    else:
        heading = ("day", "key", "app", "tokens", "refused", "connections", "seconds", "images", "pixels")
        rows = (tuple(row.model_dump().values()) for row in found.usage)
        print_table(heading, ([_cell(value) for value in row] for row in rows))
    if found.next is not None:
        click.echo(f"There are more: --after {found.next}", err=True)


def _query(model: type[Query], given: dict[str, Any]) -> Query:
    """Reads the options by the same rules as a query."""
    try:
        return model.model_validate({name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        option = str(first["loc"][0]).removesuffix("_id")
        raise click.BadParameter(first["msg"], param_hint=f"--{option}") from None


def _seconds(day: datetime | None, offset: int = 0) -> int | None:
    return None if day is None else int(day.replace(tzinfo=UTC).timestamp()) + offset


def _cells(event: AuditEvent) -> tuple[str, ...]:
    detail = " ".join(f"{name}={value}" for name, value in event.detail.items())
    named = (event.kind, event.actor, event.key_id, event.subject, event.jti, event.app, event.address, detail)
    return str(event.id), utc(event.at), *(_cell(value) for value in named)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return "-" if value in (None, "") else str(value)
