"""docs/conformance.md, from the tests themselves: `python -m tests.conformance.table`."""

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.conformance.behaviours import ATTRIBUTE, Behaviour
from tests.conformance.elsewhere import HELD, Held

HERE: Final = Path(__file__).parent
TESTS: Final = HERE.parent
PAGE: Final = TESTS.parent / "docs" / "conformance.md"
THIS_PAGES_OWN: Final = "test_table.py"

SECTIONS: Final = {
    "1a": "Minting: the older route",
    "1b": "Minting: the current route",
    "1c": "Minting: errors",
    "1d": "Tokens and open sockets",
    "2a": "Addresses",
    "2b": "Who may enter, and how a refusal looks",
    "2c": "Messages",
    "2d": "Closing",
    "2e": "Buffering, idle time, request ids",
    "3": "Modes, batches, bad inputs, raw sockets",
    "4": "HTTP and server-sent events",
    "5": "HTTP over WebSocket",
    "6": "The models",
    "7": "What once broke users",
    "8": "Pointing the official clients here",
}

INTRODUCTION: Final = """# Conformance with fal

One row for each behaviour of fal's wire, and the test that holds it. Where fal's own SDK shows the behaviour, the
same test runs against both: `fal` {version}, served by uvicorn without an account or a network, and this project's
token service and runner. Both serve [one app](../tests/conformance/app.py), of which only the import lines are
replaced for ours. Both run with `make test-conformance`, ours alone with `make test`.

In the column *fal's SDK*, "tested" means that the test passed against it; otherwise it says who else does this, so
that there is nothing to run. In the column *ours*, "same" means that the same is asserted of both; whatever **differs**
does so on purpose, for the reason given.

This page is written from the tests: `make docs`.
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    section: str
    text: str
    fal: str
    ours: str
    tests: tuple[str, ...]
    """`path::name` below `tests/`."""


def page() -> str:
    """The whole page."""
    rows = [*map(_here, own_tests().items()), *map(_elsewhere, HELD)]
    parts = [INTRODUCTION.format(version=_fal_version())]
    for section, title in SECTIONS.items():
        lines = [_line(row) for row in rows if row.section == section]
        head = [f"## {title} (§{section})\n", "| behaviour | fal's SDK | ours | test |", "|---|---|---|---|"]
        parts.append("\n".join([*head, *lines, ""]))
    return "\n".join(parts)


def own_tests() -> dict[str, Callable[..., Any]]:
    """The tests of this folder by `path::name`, in the order of their files."""
    return {
        f"conformance/{path.name}::{name}": member
        for path in sorted(HERE.glob("test_*.py"))
        if path.name != THIS_PAGES_OWN
        for name, member in _functions(path)
    }


def exists(test: str) -> bool:
    """Whether there is a test `path::name`, or `path::Class::name`."""
    path, *names = test.split("::")
    file = TESTS / path
    if not file.exists() or not names:
        return False
    body: list[ast.stmt] = ast.parse(file.read_text()).body
    for name in names:
        found = [node for node in body if isinstance(node, _NAMED) and node.name == name]
        if not found:
            return False
        body = found[0].body
    return True


_NAMED: Final = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _functions(path: Path) -> Iterator[tuple[str, Callable[..., Any]]]:
    module = importlib.import_module(f"tests.conformance.{path.stem}")
    for name, member in vars(module).items():
        if name.startswith("test_") and inspect.isfunction(member) and member.__module__ == module.__name__:
            yield name, member


def _here(named: tuple[str, Callable[..., Any]]) -> Row:
    name, test = named
    held: Behaviour = getattr(test, ATTRIBUTE)
    if "target" not in inspect.signature(test).parameters:
        return Row(held.section, held.text, held.whose, "tested", (name,))
    ours = f"**differs**: {held.differs}" if held.differs else "same"
    return Row(held.section, held.text, "tested", ours, (name,))


def _elsewhere(held: Held) -> Row:
    return Row(held.section, held.text, held.whose, f"tested. {held.note}" if held.note else "tested", held.tests)


def _line(row: Row) -> str:
    tests = "<br>".join(f"[{name}](../tests/{path})" for path, *_, name in (test.split("::") for test in row.tests))
    return f"| {_cell(row.text)} | {row.fal} | {_cell(row.ours)} | {tests} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _fal_version() -> str:
    [pin] = [line for line in (HERE / "requirements.txt").read_text().splitlines() if line.startswith("fal==")]
    return pin.removeprefix("fal==")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
