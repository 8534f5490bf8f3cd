"""What Prometheus reads, parsed as Prometheus would."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from runner.doors import metrics
from runner.doors.reports import Reporter
from runner.doors.tally import Tally
from runner.engine.request import EngineStatistics, GenerationRequest, GenerationResult
from schemas.errors import RealtimeErrorCode
from tests.runner.doors.events import session_event

ORDER = ["worker", "device", "state", "outcome", "latents", "reason", "code", "stage", "le"]


@dataclass
class Seat:
    device: str = "cpu"
    state: str = "READY"
    restarts: int = 0
    pending: int = 0
    statistics: EngineStatistics = field(default_factory=EngineStatistics)


@dataclass
class Engine:
    workers: Sequence[Seat]
    pending: int = 0


def scrape(
    engine: Engine, tally: Tally | None = None, reporter: Reporter | None = None
) -> dict[tuple[str, ...], float]:
    """Every sample, by its name and its labels' values: worker, device, and what else there is."""
    app = Flask("test")
    app.register_blueprint(metrics.blueprint(engine, tally or Tally(), reporter))
    answer = app.test_client().get("/metrics")
    assert answer.status_code == 200
    assert answer.content_type.startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    assert all(family.documentation for family in families)
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels, key=ORDER.index))): sample.value
        for family in families
        for sample in family.samples
    }


def test_an_engine_that_has_done_nothing() -> None:
    found = scrape(Engine([Seat(state="STARTING")]))
    assert found["runner_engine_pending_requests",] == 0
    assert found["runner_worker_state", "0", "cpu", "starting"] == 1
    assert found["runner_worker_state", "0", "cpu", "ready"] == 0
    assert found["runner_worker_restarts_total", "0", "cpu"] == 0
    assert found["runner_worker_step_rows_count", "0", "cpu"] == 0


def test_each_worker_has_its_own_numbers() -> None:
    statistics = EngineStatistics(
        ticks=6,
        ticks_by_rows={"1": 3, "4": 2, "40": 1},
        steps_by_size={"16x16": 51},
        step_seconds=1.5,
        answers={"finished": 7, "refused": 1},
        pictures=8,
        prompt_cache_hits=9,
        prompt_cache_misses=10,
        prompt_cache_bytes=11,
        waiting_requests=12,
        running_requests=13,
    )
    found = scrape(Engine([Seat("cuda:0"), Seat("cuda:1", "RESTARTING", 2, 25, statistics)], pending=30))
    here = ("1", "cuda:1")
    assert found["runner_engine_pending_requests",] == 30
    assert found["runner_worker_state", *here, "restarting"] == 1
    assert found["runner_worker_restarts_total", *here] == 2
    assert found["runner_worker_in_hand_requests", *here] == 25
    assert found["runner_worker_waiting_requests", *here] == 12
    assert found["runner_worker_running_requests", *here] == 13
    assert found["runner_worker_pictures_total", *here] == 8
    assert found["runner_worker_step_seconds_total", *here] == 1.5
    assert found["runner_worker_prompt_cache_hits_total", *here] == 9
    assert found["runner_worker_prompt_cache_misses_total", *here] == 10
    assert found["runner_worker_prompt_cache_bytes", *here] == 11
    assert found["runner_worker_answers_total", *here, "finished"] == 7
    assert found["runner_worker_steps_total", *here, "16x16"] == 51
    buckets = [found["runner_worker_step_rows_bucket", *here, bound] for bound in ("1.0", "2.0", "4.0", "32.0", "+Inf")]
    assert buckets == [3, 3, 5, 5, 6]
    assert found["runner_worker_step_rows_sum", *here] == 51
    assert found["runner_worker_pictures_total", "0", "cuda:0"] == 0


def test_what_happens_at_the_doors() -> None:
    tally = Tally()
    for why in (401, 429, 429, 418, RealtimeErrorCode.NOT_FOUND, RealtimeErrorCode.VALIDATION_ERROR):
        tally.refused(why)
    for code, images in [(1000, 2), (1006, 0), (4029, 1), (4567, 0), (None, 0)]:
        tally.opened()
        tally.closed(code, images)
    tally.opened()
    tally.sent(0.001, 5)
    samples = scrape(Engine([]), tally)
    others = ("runner_engine", "runner_worker", "runner_stage", "runner_request_")
    doors = {name: value for name, value in samples.items() if not name[0].startswith(others)}
    refused, closed = "runner_handshakes_refused_total", "runner_sessions_closed_total"
    assert doors == {
        ("runner_open_sessions",): 1,
        ("runner_pictures_sent_total",): 3,
        ("runner_inputs_dropped_total",): 5,
        (refused, "unauthorized"): 1,
        (refused, "limit_exceeded"): 2,
        (refused, "not_found"): 1,
        (refused, "validation_error"): 1,
        (refused, "other"): 1,
        (closed, "1000"): 1,
        (closed, "1006"): 1,
        (closed, "4029"): 1,
        (closed, "other"): 2,
    }


def test_how_reporting_goes() -> None:
    reporter = Reporter(lambda _: None, capacity=1)
    for _ in range(3):
        reporter.add(session_event())
    samples = scrape(Engine([]), reporter=reporter)
    assert samples["runner_reports_waiting",] == 1
    assert samples["runner_reports_lost_total",] == 2


def test_each_stage_has_its_own_times() -> None:
    tally = Tally()
    asked = GenerationRequest("a star", 64, 64, num_inference_steps=4, guidance_scale=1.0, seed=0)
    timings = {"queue": 0.0005, "text": 0.003, "denoise": 0.4, "decode": 0.04, "encode": 0.004, "a peer's": 1.0}
    tally.stages.drew(asked, GenerationResult([], timings), 0.45)
    tally.sent(60, 0)
    found = scrape(Engine([]), tally)
    stages = {name[1] for name in found if name[0] == "runner_stage_seconds_count"}
    assert stages == {"queue", "text", "denoise", "step", "decode", "encode", "send"}
    assert found["runner_stage_seconds_sum", "step"] == 0.1
    assert found["runner_stage_seconds_bucket", "queue", "0.001"] == 1
    assert (found["runner_stage_seconds_bucket", "send", "30.0"], found["runner_stage_seconds_count", "send"]) == (0, 1)
    assert found["runner_request_seconds_sum",] == 0.45
    assert not [name for name in found if name[0].endswith("_created")]
