"""How commands print: tables for people, one JSON object for programs."""

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click

json_option: Final = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def example(*lines: str) -> str:
    """The last part of a command's help."""
    return "\b\nExample:\n" + "\n".join(f"  python -m authsvc {line}" for line in lines)


def print_json(value: dict[str, Any]) -> None:
    """Prints one JSON object on one line."""
    click.echo(json.dumps(value))


def print_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints columns as wide as their widest cell."""
    table = [tuple(heading), *map(tuple, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def utc(seconds: int | None) -> str:
    """Unix seconds for people; a dash for never."""
    return "-" if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
