"""What a real runner tells a collector of what real clients had it do."""

from pathlib import Path

import httpx
import msgpack
from websockets.sync.client import connect

from tests.collector import attributes, collecting
from tests.stack import running

APP = "fal-ai/fast-lcm-diffusion"


def test_sockets_and_requests_are_traced_and_nothing_secret_is(tiny_bundle: Path) -> None:
    with collecting() as collector, running(tiny_bundle, otlp_endpoint=collector.url) as stack:
        token = stack.mint(APP)
        with connect(f"{stack.runner_url}/{APP}/realtime?fal_jwt_token={token}", max_size=None) as socket:
            socket.send(msgpack.packb({"prompt": "a prompt of somebody's"}))
            assert msgpack.unpackb(socket.recv())["images"]
        url = stack.runner_url.replace("ws://", "http://")
        answer = httpx.post(f"{url}/{APP}?fal_jwt_token={token}", json={"prompt": "a prompt of somebody's"})
        assert answer.status_code == 200
    [session] = collector.named(f"session {APP}/realtime")
    assert attributes(session)["lcm.close_code"] == 1000
    [generation] = collector.named(f"generate {APP}/realtime")
    assert generation.links[0].span_id == session.span_id
    [request] = collector.named(f"POST {APP}")
    assert attributes(request)["http.response.status_code"] == 200
    assert attributes(request)["lcm.request_id"] == answer.headers["x-fal-request-id"]
    for parent in (generation, request):
        stages = {span.name for span in collector.spans if span.parent_span_id == parent.span_id}
        assert {"denoise", "decode", "encode"} <= stages
    sent = b"".join(exported.SerializeToString() for exported in collector.requests)
    for secret in (b"somebody", token.encode(), stack.key.encode()):
        assert secret not in sent
