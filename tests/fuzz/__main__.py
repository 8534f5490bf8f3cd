"""`python -m tests.fuzz all --seconds 600`: every target for ten minutes under atheris, two at a time, and a table.

Runs in the environment that `make fuzz` makes (`.venv-fuzz`). What is found is left in `.fuzz/TARGET/`, as a file that
`python -m tests.fuzz TARGET --input FILE` runs again.
"""

import argparse
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOUND = ROOT / ".fuzz"
NAMES = (
    "websocket_frames",
    "http_handshake",
    "message_codec",
    "realtime_session",
    "query_and_credentials",
    "paths_and_scopes",
    "token",
    "data_uri",
    "picture",
    "http_over_websocket",
    "hosting_frames",
    "engine_frames",
)
INPUT_MAX_BYTES = 16 * 1024
MEMORY_MAX_MB = 2048
SECONDS_MAX = 10


def fuzz(name: str, seconds: int) -> None:
    """One target, in this process; libFuzzer ends the process."""
    import atheris

    # Whatever is imported in here reports its branches to the fuzzer.
    with atheris.instrument_imports(include=["runner", "tokens", "schemas", "httpbase", "websockets"]):
        from tests.fuzz import targets
    from tests.fuzz.corpus import SEEDS

    folder = FOUND / name
    seeds = folder / "corpus"
    seeds.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (seeds / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_MAX_BYTES}",
        f"-rss_limit_mb={MEMORY_MAX_MB}",
        f"-timeout={SECONDS_MAX}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(seeds)], targets.TARGETS[name])
    atheris.Fuzz()


def fuzz_all(names: list[str], seconds: int, jobs: int) -> int:
    """Each in a process of its own; how many found something."""
    FOUND.mkdir(exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        outcomes = list(pool.map(lambda name: _in_process(name, seconds), names))
    print(f"{'target':24} {'seconds':>8} {'inputs':>12} {'branches':>9}  outcome")
    for name, (took, log, status) in zip(names, outcomes, strict=True):
        inputs = re.search(r"stat::number_of_executed_units: (\d+)", log)
        covered = re.findall(r"cov: (\d+)", log)
        found = re.search(r"(?:Test unit written to|test_unit=) ?(\S+)", log)
        outcome = "nothing found" if status == 0 else f"FOUND: {found[1] if found else f'exit status {status}'}"
        counts = (inputs[1] if inputs else "?", covered[-1] if covered else "?")
        print(f"{name:24} {took:8.0f} {counts[0]:>12} {counts[1]:>9}  {outcome}")
    return sum(status != 0 for _, _, status in outcomes)


def _in_process(name: str, seconds: int) -> tuple[float, str, int]:
    started = time.monotonic()
    command = [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace")
    log = done.stdout + done.stderr
    (FOUND / f"{name}.log").write_text(log)
    return time.monotonic() - started, log, done.returncode


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", nargs="+", choices=[*NAMES, "all"])
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--jobs", type=int, default=2, help="targets at the same time")
    parser.add_argument("--input", type=Path, help="run the target once, on this file")
    options = parser.parse_args()
    names = list(NAMES) if "all" in options.target else options.target
    if options.input:
        from tests.fuzz import targets

        targets.run(names[0], options.input.read_bytes())
    elif len(names) == 1:
        fuzz(names[0], options.seconds)
    else:
        sys.exit(fuzz_all(names, options.seconds, options.jobs))


if __name__ == "__main__":
    main()
