"""Each socket is a flow of its own, so that the engine can share itself out among sockets."""

import gevent
import msgpack
from pydantic import BaseModel

from runner.doors.driver import Driver
from runner.engine.request import FLOW
from runner.protocol.session import Session, SessionRules
from tests.runner.doors.door import settle
from tests.runner.doors.test_realtime_driver import OneMessageSocket, Prompt


def test_a_socket_is_one_flow_and_the_next_socket_another() -> None:
    flows: list[str] = []

    def note(received: BaseModel) -> BaseModel:
        flows.append(FLOW.get())
        return received

    for _ in range(2):
        socket = OneMessageSocket([msgpack.packb({"prompt": "x"})] * 3)
        driver = Driver(socket, note, Session(Prompt, SessionRules(), 0.0), lambda: 0.0)
        running = gevent.spawn(driver.run)
        settle()
        socket.ended.set()
        running.get()
    assert [len(set(flows[:3])), len(set(flows[3:])), len(set(flows))] == [1, 1, 2]
    assert all(flows)
    assert FLOW.get() == ""
