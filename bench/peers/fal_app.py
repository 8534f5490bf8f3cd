"""Serves an app of ours with fal's own SDK: `python fal_app.py FILE CLASS`. Runs in `.venv-fal`.

Only the app's import line is replaced. The application is built as `fal run` builds it in its containers, and served
by uvicorn with the options that fal.api serves with; no account and no network is needed.
"""

import sys
from pathlib import Path

import fal
import uvicorn

OUR_IMPORT = "import runner as fal"


def application(file: Path, name: str) -> object:
    """The ASGI application of the class."""
    source = file.read_text()
    if OUR_IMPORT not in source:
        sys.exit(f"{file} does not say {OUR_IMPORT!r}")
    # A module of its own: annotations are looked up in it.
    module = type(sys)(file.stem)
    module.__file__ = str(file)
    sys.modules[file.stem] = module
    exec(compile(source.replace(OUR_IMPORT, "import fal"), file.name, "exec"), module.__dict__)
    app = getattr(module, name)(_allow_init=True)
    assert isinstance(app, fal.App)
    return app._build_app()


if __name__ == "__main__":
    uvicorn.run(application(Path(sys.argv[1]), sys.argv[2]), host="127.0.0.1", port=0, timeout_keep_alive=300)
