"""asyncapi.yaml, from the runner's code: `python -m deploy.asyncapi [--check]`."""

import sys
from pathlib import Path

import yaml

from runner import asyncapi

FILE = Path(__file__).parent.parent / "asyncapi.yaml"


class _Dumper(yaml.SafeDumper):
    """Writes out what is there twice: an alias reads worse."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def text() -> str:
    """The file's content."""
    document = asyncapi.document()
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def main() -> None:
    """Write the file, or with --check say whether it is the code's."""
    if "--check" in sys.argv[1:]:
        sys.exit(0 if FILE.read_text() == text() else f"{FILE.name} is not the code's: run `make docs`")
    FILE.write_text(text())


if __name__ == "__main__":
    main()
