"""The options that say what a key is, and the body that they stand for.

They are read by the same rules as a body over HTTP; a fault names the option.
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click
from pydantic import BaseModel, ValidationError

from authsvc.domain.api_keys import InvalidScope
from schemas.tokens import PinnedLimits

NONE: Final = "none"
"""Written for a number: there shall be none."""

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION: Final = re.compile(r"([0-9]{1,12})([smhdw]?)", re.ASCII)

Command = Callable[..., None]
Body = TypeVar("Body", bound=BaseModel)


class Duration(click.ParamType[int]):
    """Seconds, written as a number with or without a unit: 3600, 60m, 12h, 90d, 2w."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Reads what was written."""
        found = _DURATION.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is no duration: write seconds, or 60m, 12h, 90d, 2w", param, ctx)
        return int(found[1]) * _UNITS_S[found[2] or "s"]


class _OrNone(click.ParamType[Any]):
    """What another type reads, or `none`."""

    def __init__(self, inner: click.ParamType[Any]) -> None:
        self._inner = inner
        self.name = f"{inner.name}|{NONE}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Leaves `none` for `body` to read: click takes None for an option that was not given."""
        return value if value == NONE else self._inner.convert(value, param, ctx)


_OPTIONS: Final = (
    click.option("--name", help="What the key is for."),
    click.option("--apps", multiple=True, help="alias, owner/alias, a full path, or * (repeatable)."),
    click.option("--expires-in", type=_OrNone(Duration()), help="Seconds from now, or 12h, 90d …"),
    click.option("--rate-per-minute", type=_OrNone(click.INT), help="Tokens a minute."),
    click.option("--daily-quota", type=_OrNone(click.INT), help="Tokens a day (UTC)."),
    *(
        click.option(f"--{name.replace('_', '-')}", type=_OrNone(click.INT), help=f"Of a token: {field.description}")
        for name, field in PinnedLimits.model_fields.items()
    ),
)


def key_options(command: Command) -> Command:
    """Adds the options to a command, in their order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def body(model: type[Body], options: Mapping[str, Any]) -> Body:
    """The body that the options stand for; what was not given is not in it.

    Raises:
        click.BadParameter: a value does not fit.
    """
    given: dict[str, Any] = {
        name: None if value == NONE else value for name, value in options.items() if value is not None and value != ()
    }
    if "expires_in" in given:
        seconds = given.pop("expires_in")
        given["expires_at"] = None if seconds is None else int(time.time()) + seconds
    limits = {name: given.pop(name) for name in PinnedLimits.model_fields if name in given}
    try:
        return model.model_validate({**given, "limits": limits} if limits else given)
    except ValidationError as error:
        raise _fault(error) from None


def _fault(error: ValidationError) -> click.BadParameter:
    """The first fault, with the option that it is in."""
    first = error.errors(include_url=False)[0]
    names = [str(name) for name in first["loc"] if isinstance(name, str)]
    message = str(InvalidScope(first["input"])) if len(first["loc"]) > 1 and names[0] == "apps" else first["msg"]
    option = "expires-in" if names[-1] == "expires_at" else names[-1].replace("_", "-")
    return click.BadParameter(message, param_hint=f"--{option}")
