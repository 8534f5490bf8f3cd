"""docs/settings.md, from the settings classes themselves: `python -m deploy.settings_reference [--check]`."""

import sys
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

import authsvc.settings
import runner.settings
import web.settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
CLASSES: dict[str, type[BaseSettings]] = {
    "authsvc": authsvc.settings.Settings,
    "runner": runner.settings.Settings,
    "web (the demo site)": web.settings.Settings,
}
INTRODUCTION = """# Settings

Every setting is an environment variable; the flags of each service's `serve` command override them, and
`python -m authsvc check-config` shows what is in force. This page is written from the code (`make docs`).
"""


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *(section(title, settings) for title, settings in CLASSES.items())])


def section(title: str, settings: type[BaseSettings]) -> str:
    """One service's table."""
    prefix = settings.model_config.get("env_prefix", "")
    rows = [
        f"| `{prefix}{name.upper()}` | {default(field.default)} | {field.description} |"
        for name, field in settings.model_fields.items()
    ]
    return "\n".join([f"## {title}\n", "| variable | default | what it does |", "|---|---|---|", *rows, ""])


def default(value: object) -> str:
    """A default as one writes it in an environment file; a secret's default is not shown."""
    if value is PydanticUndefined:
        return "required"
    if value is None or value == "" or isinstance(value, SecretStr):
        return ""
    return f"`{value}`"


def main() -> None:
    """Write the page, or with --check say whether it is the code's."""
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text() == page() else f"{PAGE.name} is not the code's: run `make docs`")
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
