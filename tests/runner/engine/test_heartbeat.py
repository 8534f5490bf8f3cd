from runner.engine.heartbeat import HEARTBEAT_S, Heartbeat


def test_it_is_due_once_a_beat_however_often_it_is_asked() -> None:
    now = 100.0
    heartbeat = Heartbeat(lambda: now)
    due = []
    for tick in range(40):
        now = 100.0 + tick * HEARTBEAT_S / 10
        if heartbeat.is_due():
            due.append(tick)
    assert due == [10, 20, 30]


def test_it_knows_how_long_it_is_not_due() -> None:
    now = 100.0
    heartbeat = Heartbeat(lambda: now)
    now = 100.0 + HEARTBEAT_S / 4
    assert heartbeat.due_in() == HEARTBEAT_S * 3 / 4
    now = 200.0
    assert heartbeat.due_in() == 0
