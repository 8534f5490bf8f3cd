"""The house's law: arrows point one way (see docs/architecture.md)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ("schemas", "tokens", "httpbase", "authsvc", "runner", "web")

# What a package may import of ours; a more specific name wins over the package it lies in.
ALLOWED = {
    "schemas": {"schemas"},
    "tokens": {"tokens", "schemas"},
    "httpbase": {"httpbase", "schemas"},
    "authsvc": {"authsvc", "httpbase", "tokens", "schemas"},
    "runner": {"runner", "httpbase", "tokens", "schemas"},
    "web": {"web", "schemas"},
}
RUNNER_ROOMS = {
    "runner.protocol": {"runner.protocol"},
    "runner.engine": {"runner.engine"},
    "runner.media": {"runner.media"},
    "runner.fetching": {"runner.fetching", "runner.engine.request"},
    "runner.apps": {"runner.apps", "runner.protocol", "runner.media", "runner.engine.request"},
    "runner.doors": {"runner.doors", "runner.apps", "runner.protocol", "runner.media", "runner.engine.request"},
    "runner.hosting": {"runner.hosting", "runner.apps", "runner.protocol", "runner.engine.request"},
    "runner.export": {"runner.export", "runner.engine"},
}
AUTHSVC_ROOMS = {
    "authsvc.store": {"authsvc.store", "authsvc.migrations"},
    "authsvc.ledger": {"authsvc.ledger", "authsvc.store"},
    "authsvc.domain": {"authsvc.domain", "authsvc.ledger", "authsvc.store", "authsvc.settings"},
}
NEVER_IN_A_SERVER = {"torch", "diffusers", "transformers", "optimum"}
TOKENS_IN_RUNNER = {"tokens.verify", "tokens.keys", "tokens.scope", "tokens.revocation", "tokens.errors"}
NO_IO = {
    "socket",
    "ssl",
    "gevent",
    "geventwebsocket",
    "httpx",
    "flask",
    "subprocess",
    "os",
    "time",
    "threading",
}


def modules() -> list[str]:
    files = (file for package in HOUSE for file in (ROOT / package).rglob("*.py"))
    return sorted(".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files)


def imports(module: str) -> Iterator[str]:
    """Every module that `module` names in an import, wherever in the file it stands."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import; the house uses absolute ones"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def leads_to(name: str, packages: set[str]) -> bool:
    """`name` lies in one of `packages`, or is a package on the way to it (`from runner.engine import request`)."""
    return within(name, packages) or any(package.startswith(name + ".") for package in packages)


@pytest.mark.parametrize("module", modules())
def test_a_package_imports_only_what_stands_below_it(module: str) -> None:
    allowed = ALLOWED[module.split(".")[0]]
    ours = {name for name in imports(module) if name.split(".")[0] in ALLOWED}
    assert {name for name in ours if not within(name, allowed)} == set()


@pytest.mark.parametrize("module", [name for name in modules() if ".".join(name.split(".")[:2]) in AUTHSVC_ROOMS])
def test_a_room_of_authsvc_imports_only_the_floors_below(module: str) -> None:
    ours = {name for name in imports(module) if within(name, {"authsvc"})}
    assert {name for name in ours if not leads_to(name, AUTHSVC_ROOMS[".".join(module.split(".")[:2])])} == set()


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("runner.")])
def test_a_room_of_the_runner_imports_only_the_floors_below(module: str) -> None:
    room = ".".join(module.split(".")[:2])
    if room not in RUNNER_ROOMS:
        pytest.skip("cli, gateway and settings wire the rooms together")
    ours = {name for name in imports(module) if name.startswith("runner.")}
    assert {name for name in ours if not leads_to(name, RUNNER_ROOMS[room])} == set()


@pytest.mark.parametrize("module", [name for name in modules() if name.startswith("runner")])
def test_the_runner_can_verify_but_not_mint(module: str) -> None:
    used = {name for name in imports(module) if name.startswith("tokens.")}
    assert {name for name in used if not within(name, TOKENS_IN_RUNNER)} == set()


@pytest.mark.parametrize("module", modules())
def test_torch_stays_in_the_exporter(module: str) -> None:
    if module.startswith("runner.export"):
        pytest.skip("the exporter is where torch belongs")
    assert {name for name in imports(module) if name.split(".")[0] in NEVER_IN_A_SERVER} == set()


@pytest.mark.parametrize(
    "module", [name for name in modules() if name.startswith(("runner.protocol", "tokens", "schemas"))]
)
def test_decisions_do_no_io(module: str) -> None:
    assert {name for name in imports(module) if name.split(".")[0] in NO_IO} == set()


def test_nothing_but_the_command_line_reaches_the_exporter() -> None:
    users = {module for module in modules() if within_any(imports(module), {"runner.export"})}
    assert {name for name in users if not name.startswith(("runner.export", "runner.cli"))} == set()


def within_any(names: Iterator[str], packages: set[str]) -> bool:
    return any(within(name, packages) for name in names)
