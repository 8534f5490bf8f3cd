"""`pytest tests/autobahn -m autobahn -rs`: what the Autobahn suite makes of our WebSockets."""

from collections import Counter

import pytest

from runner.doors.websocket import WebSocketOptions, WebSocketServer

from . import suite

# Category 9 cuts messages of 16 MiB, our limit, into frames of 64 bytes.
OPTIONS = WebSocketOptions(max_fragments=1 << 18)


def echo(environ, start_response):
    websocket = environ["wsgi.websocket"]
    while (message := websocket.receive()) is not None:
        websocket.send(message)
    return []


@pytest.mark.autobahn
@pytest.mark.timeout(1800)
def test_every_case_passes(tmp_path, capsys):
    python = suite.find_python27()
    if python is None:
        pytest.skip("Python 2.7 not found")
    server = WebSocketServer(("127.0.0.1", 0), echo, gate=lambda environ: None, options=OPTIONS)
    server.start()
    try:
        url = f"ws://127.0.0.1:{server.server_port}"
        cases = suite.run(python, suite.install(python), url, tmp_path / "reports")
    finally:
        server.stop(5)
    with capsys.disabled():
        print(f"\n{suite.summary(cases)}")
    assert Counter(case.category for case in cases) == {
        1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1,
    }  # fmt: skip
    assert [case for case in cases if not case.passed] == []
