"""The settings as commands see them, and `authsvc check-config`."""

from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from authsvc.cli.output import example, json_option, print_json, print_table
from authsvc.installation import open_database, try_stores
from authsvc.settings import Settings
from authsvc.store.database import Database


@click.command(name="check-config", epilog=example("check-config"))
@json_option
def check_config(as_json: bool) -> None:
    """Show every setting, without passwords, and try the database and Redis."""
    settings = load_settings()
    _try_stores(settings)
    values = settings.model_dump(mode="json")
    if as_json:
        print_json({"ok": True, "settings": values})
        return
    print_table(
        ("variable", "value", "meaning"),
        ((variable(name), str(value), _meaning(name)) for name, value in values.items()),
    )


def _try_stores(settings: Settings) -> None:
    from authsvc.store.redis_store import RedisUnavailable  # here, because no other command has a use for it

    try:
        try_stores(settings)
    except RedisUnavailable as error:
        raise click.ClickException(f"{error}. Check AUTHSVC_REDIS_URL.") from None


def open_existing(settings: Settings) -> Database:
    """Opens a database that is there: a command that shows or changes makes none in a folder given by mistake.

    Raises:
        click.ClickException: there is none.
    """
    url = settings.database
    if url.get_backend_name() == "sqlite" and not (path := Path(str(url.database))).exists():
        raise click.ClickException(
            f"there is no database at {path.absolute()}, so there is nothing for `keys list` to show. Check "
            "AUTHSVC_DATA_DIR and AUTHSVC_DATABASE_URL; `keys create` and `serve` make a database."
        )
    return open_database(settings)


def load_settings(**overrides: Any) -> Settings:
    """Reads the environment; options that were given override it.

    Raises:
        click.ClickException: a variable cannot be used; the message names it and does not repeat its value.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        raise click.ClickException("; ".join(setting_faults(error))) from None


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"AUTHSVC_{name.upper()}"


def setting_faults(error: ValidationError) -> list[str]:
    """One sentence a fault, each naming the variable to mend; values are not repeated."""
    return [_fault(".".join(map(str, entry["loc"])), str(entry["msg"])) for entry in error.errors()]


def _fault(name: str, message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not name:
        name, _, message = message.partition(": ")
    return f"{variable(name)}: {message}"


def _meaning(name: str) -> str:
    return Settings.model_fields[name].description or ""
