from runner.engine.batcher import Tick
from runner.engine.prompt_cache import CacheStatistics
from runner.engine.request import EngineStatistics
from runner.engine.statistics import Tally, total
from tests.runner.engine.test_batcher import LARGE, SMALL, Picture

EMPTY = CacheStatistics(0, 0, 0)


def test_it_counts_what_it_is_told() -> None:
    tally = Tally()
    assert not tally.has_changed
    tally.stepped(Tick(SMALL, (Picture("a"), Picture("b", row_count=2)), 3), 0.5)
    tally.stepped(Tick(LARGE, (Picture("c", LARGE),), 1), 0.25)
    tally.drew(3)
    tally.answered("finished")
    tally.answered("refused")
    assert tally.has_changed
    assert tally.report(CacheStatistics(5, 6, 7), waiting=8, running=9) == EngineStatistics(
        ticks=2,
        ticks_by_rows={"3": 1, "1": 1},
        steps_by_size={"8x8": 2, "16x16": 1},
        step_seconds=0.75,
        answers={"finished": 1, "refused": 1},
        pictures=3,
        prompt_cache_hits=5,
        prompt_cache_misses=6,
        prompt_cache_bytes=7,
        waiting_requests=8,
        running_requests=9,
    )
    assert not tally.has_changed


def test_callers_cannot_fill_it_with_sizes() -> None:
    tally = Tally()
    for side in range(1, 200):
        tally.stepped(Tick((4, side, side), (Picture("a"),), 1), 0.0)
    sizes = tally.report(EMPTY, 0, 0).steps_by_size
    assert len(sizes) < 40
    assert sum(sizes.values()) == 199


def test_a_successor_counts_on_and_has_its_own_gauges() -> None:
    first = EngineStatistics(ticks=3, answers={"finished": 2, "failed": 1}, step_seconds=0.5, prompt_cache_bytes=100)
    second = EngineStatistics(ticks=4, answers={"finished": 1}, step_seconds=0.25, waiting_requests=1)
    assert total(first, second) == EngineStatistics(
        ticks=7, answers={"finished": 3, "failed": 1}, step_seconds=0.75, prompt_cache_bytes=0, waiting_requests=1
    )
