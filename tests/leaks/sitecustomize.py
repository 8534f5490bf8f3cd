"""Writes down every secret that this process makes. Python imports a module of this name when it starts.

`tests.processes` puts this folder on the path of child processes; the test run's own process installs it by hand.
It imports nothing of ours by itself: it waits for the modules that make secrets, and wraps their makers.
"""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

FILE_VARIABLE = "LCM_TEST_SECRETS"
"""The file that takes them, one a line."""


def of_token(token: str) -> str:
    # Header and claims are no secret: without the signature they open nothing.
    return token.rpartition(".")[2]


def of_credential(made: tuple[Any, Any]) -> str:
    return made[1].secret


def of_pem(pem: bytes) -> str:
    # Each PEM of an Ed25519 key begins alike (RFC 8410 §7): 22 characters in, the private bytes begin.
    return pem.decode().split("\n")[1][22:]


MAKERS: dict[str, dict[str, Callable[[Any], str]]] = {
    "tokens.mint": {"mint": of_token},
    "tokens.keys": {"SigningKey.to_pem": of_pem},
    "authsvc.domain.api_keys": {"create": of_credential, "rotate": of_credential},
}
"""By module: what makes a secret, and where in its result the secret is."""


class Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in MAKERS:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = Wrapping(spec.loader)
        return spec


class Wrapping(Loader):
    """Loads as the loader inside does, then wraps the makers."""

    def __init__(self, inside: Loader) -> None:
        self.inside = inside

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.inside.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inside.exec_module(module)
        for maker, secret_of in MAKERS[module.__name__].items():
            *owners, name = maker.split(".")
            owner: Any = module
            for part in owners:
                owner = getattr(owner, part)
            setattr(owner, name, recording(getattr(owner, name), secret_of))


def recording(make: Callable[..., Any], secret_of: Callable[[Any], str]) -> Callable[..., Any]:
    def made(*args: Any, **options: Any) -> Any:
        result = make(*args, **options)
        write_down(secret_of(result))
        return result

    made.__wrapped__ = make  # type: ignore[attr-defined]
    return made


def write_down(secret: str) -> None:
    """One write a secret, so that the lines of many processes do not mix (O_APPEND)."""
    descriptor = os.open(os.environ[FILE_VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, f"{secret}\n".encode())
    finally:
        os.close(descriptor)


def install() -> None:
    sys.meta_path.insert(0, Finder())


def loaded_makers() -> Iterator[str]:
    """Modules that were imported before `install` and so are not watched."""
    return (name for name in MAKERS if name in sys.modules)


if __name__ == "sitecustomize" and FILE_VARIABLE in os.environ:
    install()
