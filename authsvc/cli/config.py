"""The settings as commands see them, and `authsvc check-config`."""

from typing import Any

import click
from pydantic import ValidationError

from authsvc.cli.output import example, json_option, print_json, print_table
from authsvc.installation import open_database
from authsvc.settings import Settings


@click.command(name="check-config", epilog=example("check-config"))
@json_option
def check_config(as_json: bool) -> None:
    """Show every setting and try the database. Settings hold no secrets."""
    settings = load_settings()
    open_database(settings).close()
    values = settings.model_dump(mode="json")
    if as_json:
        print_json({"ok": True, "settings": values})
        return
    print_table(
        ("variable", "value", "meaning"),
        ((variable(name), str(value), _meaning(name)) for name, value in values.items()),
    )


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
