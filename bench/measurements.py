"""docs/measurements.md, from bench/results/*.json: `python -m bench.measurements [--check]`."""

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import floors
from bench.report import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "measurements.md"
Result = Mapping[str, Any]
Results = Mapping[str, Result]

INTRODUCTION = """# What was measured

Only what a script in `bench/` (or the named command) printed, with its machine. The raw results are in
`bench/results/`, and this page is written from them (`make docs`). How to run each: [performance.md](performance.md).
"""
OTHERS = """## Quality, conformance and parity

| what | command | result |
|---|---|---|
| quality of the bundled model, 256 prompts for combinations that training never saw, 4 steps | \
`python pocket/evaluate.py --quick --json` | colour 100 %, background 100 %, shape 97.3 % right (all misses are stars, \
most of them small); more in [pocket/README.md](../pocket/README.md) |
| Autobahn, categories 1-7, 9, 10 | `make test-autobahn` | 301 cases, 0 failed, 0 unclean |
| exported pipeline against diffusers, same noise, fp32 | `make test-export` | at most 1 of 255 in at most 0.1 % of \
values |
"""


@dataclass(frozen=True)
class Goal:
    """A bound that a figure is held to."""

    what: str
    bench: str
    figure: Callable[[Result], float | None]
    bound: float
    at_most: bool
    unit: str = ""

    def row(self, results: Results) -> str:
        """Its row of the table."""
        relation = "at most" if self.at_most else "at least"
        found = self.figure(results[self.bench]) if self.bench in results else None
        cells = [self.what, f"{relation} {_number(self.bound)}{self.unit}", *self._found(found)]
        return f"| {' | '.join(cells)} |"

    def _found(self, value: float | None) -> tuple[str, str]:
        if value is None:
            return "open", f"not run yet: `python -m bench.{self.bench}`"
        by = f", by {100 * abs(value - self.bound) / self.bound:.0f} %" if self.bound else ""
        is_met = value <= self.bound if self.at_most else value >= self.bound
        return f"{_number(value)}{self.unit}", f"{'met' if is_met else '**missed**'}{by}"


def _engine(model: str, name: str) -> Callable[[Result], float | None]:
    return lambda result: result["models"].get(model, {}).get(name)


def _key(name: str) -> Callable[[Result], float | None]:
    return lambda result: result[name]


def _faults(result: Result) -> float:
    return int(result["failed"]) + sum(len(result[name]) for name in ("leaks", "left_over", "replaced_processes"))


def _gpu(key: str, name: str) -> Callable[[Result], float | None]:
    return lambda result: result["measurements"].get(key, {}).get(name)


def _slowest_against_compile(result: Result) -> float | None:
    found = [value["times_faster"] for key, value in result["measurements"].items() if "torch.compile/" in key]
    return min(found, default=None)


GOALS = (
    *(
        Goal(f"{label}, {model}", "engine", _engine(model, name), bound, at_most=False)
        for model in ("pocket", "tiny-sdxl")
        for label, name, bound in (
            ("times faster than diffusers on torch (CPU)", "vs_torch", 1.4),
            ("times faster than optimum's pipeline (CPU)", "vs_optimum", 1.1),
            ("throughput with 8 waiting over one at a time (CPU)", "batch8_gain", 1.3),
        )
    ),
    Goal(
        "steps that a newcomer waits beside 4 busy clients, p95",
        "admission",
        lambda result: result["admission_p95_steps"],
        1.3,
        at_most=True,
    ),
    Goal(
        "from a revocation to the close of its sockets on two runners, the slowest",
        "revocation",
        lambda result: result["max_ms"],
        1000,
        at_most=True,
        unit=" ms",
    ),
    Goal(
        "growth of the worker's memory over 10,000 random requests",
        "endurance",
        lambda result: 100 * result["growth"],
        5,
        at_most=True,
        unit=" %",
    ),
    Goal(
        "tokens minted a second on one core, times as many as FastAPI and uvicorn",
        "mint",
        lambda result: result["vs_fastapi"],
        1.3,
        at_most=False,
    ),
    *(
        Goal(f"against fal's SDK: {what}", "gateway", _key(name), bound, at_most=at_most)
        for what, name, bound, at_most in (
            ("processor time for a message with a picture, 50 sockets", "cpu_per_message_vs_fal", 0.8, True),
            ("memory of a socket that waits", "idle_kb_vs_fal", 0.8, True),
            ("messages with a picture a second, 50 sockets", "throughput50_vs_fal", 1.3, False),
            ("p99 of them", "p99_50_vs_fal", 1.0, True),
            ("pictures of the bundled model a second, 50 sockets", "pocket_throughput50_vs_fal", 1.3, False),
            ("processor time for one of them", "pocket_cpu_vs_fal", 0.8, True),
            ("p99 of them", "pocket_p99_50_vs_fal", 1.0, True),
        )
    ),
    *(
        Goal(
            f"while the engine is saturated and a user's handler spins, {what}",
            "hub_tick",
            _key(name),
            bound,
            True,
            " ms",
        )
        for what, name, bound in (
            ("how late the hub is, p99", "hub_p99_ms", 10),
            ("an answer of `/health/ready`, p99", "health_p99_ms", 50),
        )
    ),
    Goal(
        "soak: callers without their answer, and things that grew or were left over", "soak", _faults, 0, at_most=True
    ),
    *(
        Goal(f"H200: {what}", "gpu", _gpu(key, name), bound, name == "p50_ms", " ms" if name == "p50_ms" else "/s")
        for what, key, name, bound in floors.GOALS
    ),
    Goal("H200: times faster than torch.compile, at worst", "gpu", _slowest_against_compile, 1.0, at_most=False),
)


def page(results: Results) -> str:
    """The whole page."""
    sections = [
        INTRODUCTION,
        _section("Goals", "", ["what", "goal", "measured", ""], [goal.row(results) for goal in GOALS]),
        *_present(results, "engine", engine),
        *_present(results, "admission", admission),
        *_present(results, "latency", latency),
        *_present(results, "gateway", gateway),
        *_present(results, "hub_tick", hub_tick),
        *_present(results, "soak", soak),
        *_present(results, "endurance", endurance),
        *_present(results, "revocation", revocation),
        *_present(results, "mint", mint),
        *_present(results, "cpu_options", cpu_options),
        gpu(results.get("gpu")),
        OTHERS,
    ]
    return "\n".join(sections)


def _present(results: Results, name: str, write: Callable[[Result], str]) -> Iterator[str]:
    if name in results:
        yield write(results[name])


def engine(result: Result) -> str:
    """Our engine against the others on the CPU."""
    rows = []
    for name, model in result["models"].items():
        width, height = model["size"]
        for who, figures in model["latency"].items():
            batch = model["batch8"].get(who, {})
            cells = [f"{name}, {width}x{height}, {model['steps']} steps", WHO.get(who, who)]
            cells += [f"{figures['p50_ms']:.1f}", f"{figures['p90_ms']:.1f}"]
            cells += [f"{batch[key]:.1f}" if batch else "" for key in ("alone_per_s", "together_per_s")]
            rows.append(f"| {' | '.join(cells)} |")
    variants = "; ".join(
        f"{name}: {', '.join(f'{peer} {setting}' for peer, setting in model['variants'].items())}"
        for name, model in result["models"].items()
    ).replace("_", " ")
    text = f"""`python -m bench.engine`, {_machine(result)}. One run, taking turns, each in its own process: the same
random weights, size, steps and seeds; from the prompt to JPEG; a prompt that nobody has seen before each time. Before
it, all draw the same picture (at most 1 of 255 apart). Of each peer's settings the fastest here was taken:
{variants}. "Tuned" has our session options too, which a user of optimum would have to find."""
    head = ["model", "engine", "p50 ms", "p90 ms", "pictures/s, one at a time", "8 waiting"]
    return _section("The engine against diffusers and optimum, CPU", text, head, rows)


WHO = {
    "ours": "ours (the worker's loop)",
    "ours_direct": "ours, without the loop",
    "ours_repeated": "ours, the same prompt again (cached)",
    "torch": "diffusers on torch",
    "optimum": "optimum on ONNX Runtime",
    "optimum_tuned": "optimum, tuned",
}


def admission(result: Result) -> str:
    """What a newcomer waits."""
    ranks = (50, 90, 95, 100)
    rows = [
        _row(
            name,
            figures["probes"],
            *(figures[f"admission_p{rank}_steps"] for rank in ranks),
            figures["admission_p95_ms"],
        )
        for name, figures in (
            ("step by step (what the worker does)", result["step_level"]),
            ("whole requests, for comparison", result["whole_requests"]),
        )
    ]
    text = f"""`python -m bench.admission`, {_machine(result)}. A real worker with the bundled model,
{result["busy_clients"]} clients that keep it busy, and newcomers at random instants: from a request's arrival in the
worker to the start of its first step, in median steps of that run."""
    head = ["batching", "newcomers", *(f"p{rank}" for rank in ranks[:-1]), "worst", "p95 ms"]
    return _section("Admission", text, head, rows)


def latency(result: Result) -> str:
    """The bundled model over a socket."""
    rows = [
        _row("input sent to picture received", *(result[f"p{rank}_ms"] for rank in (50, 90, 99))),
        _row("of which the engine (text, denoise, decode, encode)", result["p50_engine_ms"], "", ""),
        _row(
            "everything else (framing, msgpack, session, process border, queue)",
            result["p50_outside_engine_ms"],
            result["p90_outside_engine_ms"],
            "",
        ),
    ]
    width, height = result["size"]
    stages = ", ".join(f"{name} {value:.1f}" for name, value in result["stages_p50_ms"].items())
    text = f"""`python -m bench.latency`, {_machine(result)}. One client, one WebSocket, each input sent when the
previous picture has come; {result["requests"]} pictures at {width}x{height}, 4 steps, JPEG. Real authsvc, real runner,
a token in the query. Stages at p50, ms: {stages}."""
    return _section("Latency of the bundled model", text, ["milliseconds", "p50", "p90", "p99"], rows)


def gateway(result: Result) -> str:
    """What stands around a model, against fal's SDK."""
    rows = [
        _row(APPS_BEHIND[app, path], sockets, *(figures[key] for key in GATEWAY_FIGURES for figures in pair.values()))
        for app in ("painter", "pocket")
        for path, by_sockets in result[app].items()
        for sockets, pair in by_sockets.items()
    ]
    idle = result["idle"]
    waiting = "; ".join(
        f"{name}: {_number(idle[who]['used_kb'])} KB for each of {idle['sockets']} that wait after an answer, "
        f"{_number(idle[who]['fresh_kb'])} KB before the first, {_number(idle[who]['base_mb'])} MB without any"
        for who, name in (("ours", "ours"), ("fal", "fal's SDK"))
    )
    peer = ", ".join(f"{name} {version}" for name, version in result["peer"].items())
    text = f"""`python -m bench.gateway`, {_machine(result)}; the peer: {peer}. The same app behind both, in one run and
in turns, medians of {result["rounds"]} rounds of {result["seconds"]:g} s; ours | fal's SDK under uvicorn. Each socket
asks when its last answer has come. Processor time and memory are those of all processes of a server; the load generator
shares the {result["cores"]} cores and took {100 * result["load_generator_busy"]:.0f} % of one. Memory (what processes
share is counted once): {waiting}."""
    head = ["app", "sockets", *(f"{figure}, {who}" for figure in GATEWAY_FIGURES.values() for who in ("ours", "fal"))]
    return _section("The gateway against fal's own SDK", text, head, rows)


GATEWAY_FIGURES = {
    "per_second": "messages/s",
    "cpu_us": "processor µs for one",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
}
APPS_BEHIND = {
    ("painter", "/realtime"): "returns 60 KB",
    ("painter", "/thumbnail/realtime"): "returns 200 bytes",
    ("pocket", "/realtime"): "the bundled model",
}


def hub_tick(result: Result) -> str:
    """How late the hub is beside busy processes."""
    rows = [
        _row(PHASES[name], WHAT_IS_LATE[what], figures["p50_ms"], figures["p99_ms"], figures.get("max_ms", ""))
        for name, phase in result["phases"].items()
        for what, figures in phase.items()
    ]
    text = f"""`python -m bench.hub_tick`, {_machine(result)}. {result["seconds"]:g} s each; {result["busy_sockets"]}
sockets draw {_number(result["pictures_per_s"])} pictures/s on all cores. A probe goes out every
{result["probe_every_ms"]:g} ms, whether the last one was answered or not. A process that does nothing but to be woken
every 10 ms shows how late the machine itself is."""
    return _section("The hub beside busy processes", text, ["meanwhile", "ms", "p50", "p99", "worst"], rows)


PHASES = {
    "quiet": "nothing",
    "engine": "the engine is saturated",
    "engine_and_spinner": "and a user's handler spins",
}
WHAT_IS_LATE = {
    "hub": "the hub's timers",
    "health": "`/health/ready`",
    "ping": "a ping's pong",
    "nobody": "a process that does nothing",
}


def soak(result: Result) -> str:
    """Many that come and go, some of them hostile."""
    rows = [
        _row(re.sub(r" \d+$", "", process), *(cell for name in SOAKED for cell in _trend(found[name])))
        for process, found in result["second_half"].items()
    ]
    visits = ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in result["visits"].items())
    found = [*result["leaks"], *result["left_over"], *result["replaced_processes"]]
    verdict = "; ".join(found) if found else "nothing grew, nothing was left over"
    text = f"""`python -m bench.soak`, {_machine(result)}. {result["minutes"]:g} minutes, {result["connections"]}
connections that come and go, {result["hostile"]} of them hostile; {result["answers"]} answers, each held against its
question, {result["failed"]} failures; {verdict}. Visits: {visits}. The table is of the second half: the median, and by
how much a fitted line rises from its beginning to its end."""
    head = ["process", *(cell for name in SOAKED.values() for cell in (name, "rises by"))]
    return _section("Soak", text, head, rows)


def _trend(found: Result) -> tuple[float, float]:
    return float(found["median"]), float(found["grown"])


SOAKED = {
    "resident_mb": "memory, MB",
    "descriptors": "descriptors",
    "threads": "threads",
    "greenlets": "greenlets",
}


def endurance(result: Result) -> str:
    """Random requests, valid and not."""
    outcomes = [_row(name, count) for name, count in result["outcomes"].items()]
    text = f"""`python -m bench.endurance`, {_machine(result)}. {result["requests"]} random requests,
{result["at_once"]} at once; {len(result["failures"])} failures, {result["restarts"]} restarts of the worker, whose
memory went from {result["resident_after_warm_up_mb"]} MB after the warm-up to {result["resident_at_the_end_mb"]} MB."""
    return _section("Endurance", text, ["answer", "requests"], outcomes)


def mint(result: Result) -> str:
    """Tokens a second on one core, and what checking one costs."""
    rows = [
        _row(MINTERS[name], *(figures[key] for key in ("per_second", "p50_ms", "p99_ms", "cpu_ms")))
        for name, figures in result["servers"].items()
    ]
    ours = ("gunicorn", "gevent", "flask", "sqlalchemy", "pyjwt", "cryptography")
    versions = ", ".join(f"{name} {result['machine']['packages'][name]}" for name in ours)
    peers = ", ".join(f"{name} {version}" for name, version in result["peers"].items())
    cost = result["handshake"]
    text = f"""`python -m bench.mint`, {_machine(result)}; ours: {versions}; the peers: {peers}. One run, in turns,
{result["rounds"]} rounds of {result["seconds"]:g} s, {result["connections"]} connections that stay open,
{result["keys"]} API keys; the server on one core, the load on another (of which it took
{100 * result["load_generator_busy"]:.0f} %). All find the key in SQLite, check a rate limit, sign with Ed25519 and log
a line; authsvc alone also writes audit events and metrics. It minted {result["vs_fastapi"]:g} times as many tokens
as FastAPI and {result["vs_async_tuned"]:g} times as many as the tuned service. A handshake costs the runner
{cost["verify_us"]:.0f} µs for the token, {cost["scope_us"]:g} µs for its scope and {cost["revoked_us"]:g} µs against
{cost["revocations"]} revocations."""
    head = ["service", "tokens/s", "p50 ms", "p99 ms", "processor ms for one"]
    return _section("Minting on one core", text, head, rows)


MINTERS = {
    "authsvc": "authsvc (Flask, gunicorn, gevent)",
    "fastapi": "FastAPI and uvicorn, as documented (`def`, `Depends`, SQLAlchemy)",
    "async_tuned": "FastAPI tuned by hand (`async def`, raw sqlite3 on the event loop)",
}


def cpu_options(result: Result) -> str:
    """Session options of ONNX Runtime."""
    found = result["milliseconds"]
    columns = list(next(iter(found.values())))
    rows = [_row(name, *(figures[column] for column in columns)) for name, figures in found.items()]
    text = f"`python -m bench.cpu_options`, {_machine(result)}. Milliseconds on the bundled model, in turns."
    return _section("Options of ONNX Runtime on the CPU", text, ["options", *columns], rows)


def revocation(result: Result) -> str:
    """From a revocation to the close, and what a long list costs."""
    long = result["long_list"]
    rows = [
        _row("from the request to the close, ms", *(result[f"p{rank}_ms"] for rank in (50, 90, 99)), result["max_ms"]),
    ]
    text = f"""`python -m bench.revocation`, {_machine(result)}. {result["authsvcs"]} authsvc processes on
{STORES[result["store"]]}, {result["runners"]} runners that look every {result["poll_s"]} s: {result["revocations"]}
tokens, each with a socket at both runners and revoked at one of the services at a random moment;
{result["told_why_and_closed_4001"]} of {result["sockets"]} sockets were told why and closed with 4001. With
{long["entries"]} entries in the list a runner that starts reads them in {_number(long["read_from_the_start_s"])} s
({long["pages"]} pages of {long["page_bytes"]} bytes; {_number(long["memory_in_the_runner_mib"])} MiB of its memory), a
look that finds nothing new takes {_number(long["poll_without_news_p50_ms"])} ms (p99
{_number(long["poll_without_news_p99_ms"])} ms), and asking about one token {_number(long["check_us"])} us."""
    return _section("Revocation", text, ["", "p50", "p90", "p99", "worst"], rows)


STORES = {"postgres": "PostgreSQL and Redis", "sqlite": "one SQLite file"}


def gpu(result: Result | None) -> str:
    """Full-size SDXL; the floors alone where nothing was measured."""
    measured = result["measurements"] if result else {}
    rows = [
        _gpu_row(vae, side, steps, batch, measured.get(f"ours/{vae}/{side}/s{steps}/b{batch}"))
        for vae in ("full_vae", "tiny_vae")
        for side in (512, 1024)
        for steps in (1, 2, 4, 8)
        for batch in (1, 2, 4, 8)
        if result or (steps == 4 and batch in (1, 8))
    ]
    where = f"{result['device']}, {_machine(result)}" if result else "**open: nothing has run on a GPU so far**"
    text = f"""`python -m bench.gpu`, {where}. LCM-SDXL in half precision, random weights, new prompts, JPEG in the end.
The floor is computed for one H200 (bench/floors.py)."""
    head = ["decoder", "size", "steps", "waiting", "p50 ms", "p90 ms", "pictures/s", "floor ms", "of the floor's speed"]
    return "\n".join([_section("Full-size SDXL on a GPU", text, head, rows), *_peers(result), *_stages(result)])


def _gpu_row(vae: str, side: int, steps: int, batch: int, found: Result | None) -> str:
    floor = floors.floor_ms(vae, side, steps, batch)
    figures = [found["p50_ms"], found["p90_ms"], found["pictures_per_s"]] if found else ["open", "", ""]
    share = f"{100 * floor / found['p50_ms']:.0f} %" if found else ""
    name = "TAESDXL" if vae == "tiny_vae" else "full VAE"
    return _row(name, f"{side}x{side}", steps, batch, *figures, round(floor, 1), share)


def _peers(result: Result | None) -> Iterator[str]:
    if result is None:
        return
    rows = []
    for key, found in result["measurements"].items():
        if key.startswith("against_"):
            peer, vae, side, steps, batch = key.removeprefix("against_").split("/")
            figures = [found["ours"]["p50_ms"], found[peer]["p50_ms"], found["times_faster"]]
            rows.append(_row(peer, vae, side, steps[1:], batch[1:], *figures))
    rows += [_row(key.removeprefix("against_"), f"not run: {why}") for key, why in result["not_run"].items()]
    head = ["peer", "decoder", "size", "steps", "waiting", "ours p50 ms", "peer p50 ms", "times faster"]
    yield _section("Against diffusers on the same GPU", "In turns, in one run.", head, rows)


def _stages(result: Result | None) -> Iterator[str]:
    if result is None:
        return
    rows = [
        _row(*key.split("/")[1:], found["read"], found["text"], *found["step"].values(), *_decode(found), found["jpeg"])
        for key, found in result["measurements"].items()
        if key.startswith("stages/")
    ]
    head = ["decoder", "size", "read", "text", "step, 1 row", "2", "4", "8", "decode", "largest stage", "JPEG"]
    yield _section("What each stage takes there, ms", "Each by itself.", head, rows)


def _decode(found: Result) -> tuple[float, float]:
    return round(sum(found["decoder_stages"]), 3), max(found["decoder_stages"])


def _section(title: str, text: str, head: Sequence[str], rows: Sequence[str]) -> str:
    table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *rows]
    paragraph = textwrap.fill(" ".join(text.split()), width=118, break_long_words=False, break_on_hyphens=False)
    parts = [f"## {title}", paragraph, "\n".join(table)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _row(*cells: object) -> str:
    texts = (_number(cell) if isinstance(cell, float) else str(cell) for cell in cells)
    return f"| {' | '.join(texts)} |"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def _machine(result: Result) -> str:
    machine = result["machine"]
    packages = ", ".join(
        f"{name} {machine['packages'][name]}"
        for name in ("onnxruntime", "onnxruntime-gpu", "torch", "diffusers", "optimum")
        if name in machine["packages"]
    )
    return (
        f"{machine['date']}, {machine['cores']} cores of {machine['cpu']} (load {machine['load_1m']}), "
        f"Python {machine['python']}, {packages}"
    )


def read(folder: Path = RESULTS) -> dict[str, Any]:
    """The results by the name of their benchmark."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def main() -> None:
    """Write the page, or with --check say whether it is that of the results."""
    if "--check" in sys.argv[1:]:
        sys.exit(0 if PAGE.read_text() == page(read()) else f"{PAGE.name} is not that of the results: run `make docs`")
    PAGE.write_text(page(read()))


if __name__ == "__main__":
    main()
