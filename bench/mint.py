"""Tokens minted a second, and the 99th percentile, on one core: authsvc and FastAPI services that do the same work.

In one run and in turns: every round drives each server for some seconds over 32 connections that stay open, each
sending a request when its last answer has come, with 100 API keys. The servers are pinned to one core, the load
generator to another. Every server writes a log line for each request, as it does out of the box. See
bench/peers/fastapi_mint.py for what the peers do and leave out. Also: what a handshake costs the runner.
"""

import argparse
import json
import os
import re
import secrets
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from authsvc.domain import api_keys, signing_keys
from authsvc.installation import open_database
from authsvc.settings import Settings
from bench.load import Run, drive
from bench.report import finish, percentile
from schemas import defaults
from schemas.revocation import RevokedEntry, RevokedKind
from tests.processes import ROOT, URL_PATTERN, clean_environment, module
from tokens import scope
from tokens.keys import key_id
from tokens.mint import mint, new_claims
from tokens.revocation import RevocationSet
from tokens.verify import verify

PEERS = ROOT / "bench" / "peers"
PEERS_VENV = ROOT / ".venv-peers"
APP = "fal-ai/fast-lcm-diffusion"
KEYS = 100
CONNECTIONS = 32
RATE_PER_MINUTE = 1_000_000
REVOKED = 1000


@dataclass
class Competitor:
    """A server under test and what its rounds gave."""

    name: str
    process: psutil.Process
    port: int
    runs: list[Run] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    """Of each round, the processor time for one mint, of all its processes and threads."""

    def take_turn(self, texts: list[bytes], seconds: float) -> None:
        """One round."""
        before = self._cpu_s()
        run = drive(self.port, texts, connections=CONNECTIONS, seconds=seconds, status=b"HTTP/1.1 201")
        self.runs.append(run)
        self.cpu_ms.append(1000 * (self._cpu_s() - before) / len(run.latencies_s))

    def _cpu_s(self) -> float:
        times = [each.cpu_times() for each in (self.process, *self.process.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def figures(self) -> dict[str, Any]:
        """Medians over the rounds."""
        return {
            "per_second": round(statistics.median(run.per_second for run in self.runs), 1),
            "cpu_ms": round(statistics.median(self.cpu_ms), 3),
            "rounds_per_second": [round(run.per_second, 1) for run in self.runs],
            **{
                f"p{rank}_ms": round(
                    statistics.median(1000 * percentile(run.latencies_s, rank) for run in self.runs), 2
                )
                for rank in (50, 99)
            },
        }


def prepare(folder: Path) -> list[str]:
    """Makes both databases with the same keys, and gives the credentials."""
    credentials, rows = [], []
    with open_database(Settings(data_dir=folder)) as database:
        with database.writing() as session:
            for _ in range(KEYS):
                key, credential = api_keys.create(session, name="bench", apps=[APP], now=time.time())
                credentials.append(str(credential))
                rows.append((key.id, key.secret_sha256, json.dumps(key.apps), json.dumps(["mint"])))
        with database.reading() as session:
            (folder / "key.pem").write_bytes(signing_keys.current(session).to_pem())
    connection = sqlite3.connect(folder / "peer.sqlite3")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(
        "CREATE TABLE api_keys (id VARCHAR(64) PRIMARY KEY, secret_sha256 BLOB NOT NULL, apps JSON NOT NULL,"
        " roles JSON NOT NULL, expires_at INTEGER, revoked_at INTEGER)"
    )
    connection.executemany("INSERT INTO api_keys VALUES (?, ?, ?, ?, NULL, NULL)", rows)
    connection.commit()
    connection.close()
    return credentials


def requests(credentials: list[str]) -> list[bytes]:
    """One request for each key."""
    body = json.dumps({"allowed_apps": [APP], "duration": 120}).encode()
    return [
        (
            f"POST /tokens/realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Key {credential}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()
        + body
        for credential in credentials
    ]


def commands(peers: Path) -> dict[str, list[str]]:
    """How each server is started."""
    uvicorn = [str(peers), "-m", "uvicorn", "--app-dir", str(PEERS), "--port", "0"]
    return {
        "authsvc": module("authsvc", "serve", "--port", "0"),
        "fastapi": [*uvicorn, "fastapi_mint:app"],
        "async_tuned": [*uvicorn, "async_mint:app"],
    }


@contextmanager
def serving(name: str, command: list[str], folder: Path, core: int | None) -> Iterator[Competitor]:
    """Runs a server on one core. What it prints goes into a file, as a service manager would do."""
    output = folder / f"{secrets.token_hex(4)}.log"
    environment = clean_environment(
        {
            "AUTHSVC_DATA_DIR": str(folder),
            "AUTHSVC_KEY_RATE_PER_MINUTE": str(RATE_PER_MINUTE),
            "AUTHSVC_ADDRESS_RATE_PER_MINUTE": str(RATE_PER_MINUTE),
            "PEER_FOLDER": str(folder),
            "PEER_RATE": str(RATE_PER_MINUTE),
        }
    )
    with output.open("wb") as out, on_core(core):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield Competitor(name, psutil.Process(process.pid), _port(process, output))
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """What is started here runs on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before if core is None else {core})
    yield
    os.sched_setaffinity(0, before)


def _port(process: subprocess.Popen[bytes], output: Path) -> int:
    for _ in range(600):
        if found := re.search(URL_PATTERN, output.read_text()):
            return int(re.search(r":(\d+)", found["url"].removeprefix("http://"))[1])  # type: ignore[index]
        if process.poll() is not None:
            break
        time.sleep(0.1)
    sys.exit(f"{process.args} does not serve:\n{output.read_text()}")


def peers_python() -> Path:
    """The interpreter of the peers' environment, which is made the first time."""
    python = PEERS_VENV / "bin" / "python"
    if not python.exists():
        venv.create(PEERS_VENV, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", PEERS / "mint_requirements.txt"], check=True)
    return python


def versions(python: Path) -> dict[str, str]:
    """What is installed there."""
    code = (
        "import json; from importlib.metadata import distributions as found;"
        "print(json.dumps({one.name: one.version for one in found()}))"
    )
    listed = json.loads(subprocess.run([python, "-c", code], capture_output=True, check=True, text=True).stdout)
    names = ("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "SQLAlchemy", "PyJWT", "cryptography", "limits")
    return {name: listed[name] for name in names}


def race(competitors: list[Competitor], texts: list[bytes], *, rounds: int, seconds: float) -> float:
    """Drives each in turn; gives the share of its core that the load generator took."""
    busy = time.process_time()
    started = time.perf_counter()
    for number in range(rounds + 1):
        for competitor in competitors:
            competitor.take_turn(texts, seconds if number else min(seconds, 1.0))
            if not number:  # the first round warms up
                competitor.runs.clear()
                competitor.cpu_ms.clear()
    return (time.process_time() - busy) / (time.perf_counter() - started)


def ratio(ours: Competitor, peer: Competitor) -> float:
    """How many times as many mints a second: the median over the rounds."""
    pairs = zip(ours.runs, peer.runs, strict=True)
    return round(statistics.median(mine.per_second / theirs.per_second for mine, theirs in pairs), 3)


def handshake(folder: Path) -> dict[str, float]:
    """Microseconds that a runner with the keys at hand takes to check a token, its scope, and 1000 revocations."""
    now = time.time()
    with open_database(Settings(data_dir=folder)) as database, database.reading() as session:
        signer = signing_keys.current(session)
    keys = {key_id(signer.public): signer.public}
    issuer, audience = defaults.ISSUER, defaults.AUDIENCE
    token = mint(
        signer,
        new_claims(
            issuer=issuer, audience=audience, subject="s", apps=[APP], now=now, duration_s=120, client_id="lcmk_bench"
        ),
    )
    kind, before = RevokedKind.TOKEN, int(now)
    revoked = RevocationSet(
        RevokedEntry(kind=kind, sha256=secrets.token_hex(32), issued_before=before, expires_at=before + 3600)
        for _ in range(REVOKED)
    )
    claims = verify(token, keys, issuer=issuer, audience=audience, now=now)
    return {
        "verify_us": _microseconds(lambda: verify(token, keys, issuer=issuer, audience=audience, now=now)),
        "scope_us": _microseconds(lambda: any(scope.covers(entry, f"{APP}/realtime") for entry in claims.apps)),
        "revoked_us": _microseconds(lambda: revoked.revokes(claims)),
        "revocations": REVOKED,
    }


def _microseconds(action: Callable[[], object], calls: int = 500, repeats: int = 9) -> float:
    """The median of some repeats, for one call."""
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        for _ in range(calls):
            action()
        found.append(1e6 * (time.perf_counter() - started) / calls)
    return round(statistics.median(found), 2)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short rounds, nothing written")
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    parser.add_argument("--only", action="append", help="only these servers (repeatable)")
    options = parser.parse_args()
    rounds, seconds = (3, 2.0) if options.quick else (10, 5.0)
    cores = sorted(os.sched_getaffinity(0))
    server_core, load_core = (cores[-1], cores[0]) if len(cores) > 1 else (None, None)
    peers = peers_python()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lcm-mint-")))
        credentials = prepare(folder)
        competitors = {
            name: stack.enter_context(serving(name, command, folder, server_core))
            for name, command in commands(peers).items()
            if not options.only or name in options.only
        }
        with on_core(load_core):
            busy = race(list(competitors.values()), requests(credentials), rounds=rounds, seconds=seconds)
            cost = handshake(folder)
    numbers: dict[str, Any] = {
        "connections": CONNECTIONS,
        "keys": KEYS,
        "rounds": rounds,
        "seconds": seconds,
        "pinned": server_core is not None,
        "load_generator_busy": round(busy, 2),
        "servers": {name: competitor.figures() for name, competitor in competitors.items()},
        "handshake": cost,
        "peers": versions(peers),
    }
    for peer, name in (("fastapi", "vs_fastapi"), ("async_tuned", "vs_async_tuned")):
        if "authsvc" in competitors and peer in competitors:
            numbers[name] = ratio(competitors["authsvc"], competitors[peer])
    finish("mint", numbers, quick=options.quick, as_json=options.json)


if __name__ == "__main__":
    main()
