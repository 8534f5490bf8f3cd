"""Serves `app.py` with fal's own SDK: run by the interpreter of `.venv-fal`, which has nothing of ours.

`_build_app` is what `fal.App.serve` runs under uvicorn on fal's machines; no account or network is asked for.
"""

import socket
import sys
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).parent))
from app import ConformanceApp


def main() -> None:
    application = ConformanceApp(_allow_init=True)._build_app()
    listener = socket.create_server(("127.0.0.1", 0))
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(uvicorn.Config(application, lifespan="on")).run([listener])


if __name__ == "__main__":
    main()
