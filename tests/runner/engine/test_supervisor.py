import pytest

from runner.engine.supervisor import StallDetector


@pytest.mark.parametrize(
    ("events", "hangs"),
    [
        ("owes owes", True),
        ("owes", False),  # it may have come a moment ago
        ("idle idle idle", False),
        ("idle owes", False),
        ("owes idle owes", False),
        ("owes heard owes", False),
        ("owes heard owes owes", True),
    ],
)
def test_a_worker_hangs_if_it_owed_an_answer_through_a_whole_stretch_of_silence(events: str, hangs: bool) -> None:
    stall, verdict = StallDetector(), False
    for event in events.split():
        if event == "heard":
            stall.heard()
        else:
            verdict = stall.is_hanging(owes=event == "owes")
    assert verdict is hangs
