"""The app over HTTP (contract §4)."""

import json
import secrets

import httpx
import pytest

from tests.conformance.behaviours import behaviour
from tests.conformance.peer import control
from tests.conformance.targets import APP, OurServer, Target

ONE_ERROR_BODY = (
    "Ours has fal's `detail` and beside it RFC 9457's `type`, `title`, `status`, `instance` and fal's `error_type`: "
    "one error body for everything."
)


@behaviour("4", "POST: the JSON body is the input, the JSON answer the output")
def test_post(target: Target) -> None:
    answer = target.post("/", {"prompt": "hello", "request_id": "one"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json() == {"output": "hello", "steps": 4, "request_id": "one"}


@behaviour("4", "sub-paths are endpoints of their own; unknown fields are ignored")
def test_a_sub_path(target: Target) -> None:
    assert target.post("/async", {"prompt": "hello", "enable_magic": True}).json()["output"] == "set up: hello"


@behaviour("4", "422: `detail` is pydantic's list with `loc` below `body`, and `x-fal-billable-units: 0`")
def test_422(target: Target) -> None:
    answer = target.post("/", {"steps": 1000})
    assert (answer.status_code, answer.headers["x-fal-billable-units"]) == (422, "0")
    found = [(entry["type"], entry["loc"]) for entry in answer.json()["detail"]]
    assert found == [("missing", ["body", "prompt"]), ("less_than_equal", ["body", "steps"])]
    [_, entry] = answer.json()["detail"]
    assert (entry["msg"], entry["input"], entry["ctx"]) == ("Input should be less than or equal to 8", 1000, {"le": 8})


@behaviour("4", "a body that is not JSON is 422 `json_invalid`")
def test_broken_json(target: Target) -> None:
    answer = target.request("POST", "/", content=b'{"prompt":', headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["detail"][0]["type"]) == (422, "json_invalid")


@behaviour("4", "the members of an error body", differs=ONE_ERROR_BODY)
def test_the_members_of_an_error_body(target: Target) -> None:
    body = target.post("/", {}).json()
    beside = {"type", "title", "status", "instance", "error_type"}
    assert set(body) - {"detail"} == target.pick(fal=set(), ours=beside)


@behaviour(
    "4",
    "a path that the app does not have: 404, the path named, `x-fal-billable-units: 0`",
    differs="Ours names the path as it was asked for, the app's id included; fal's the part that its app sees.",
)
def test_404(target: Target) -> None:
    answer = target.post("/zzz", {})
    assert (answer.status_code, answer.headers["x-fal-billable-units"]) == (404, "0")
    path = target.pick(fal="/zzz", ours=f"/{APP}/zzz")
    assert answer.json()["detail"] == f"Path {path} not found"


@behaviour("4", "an endpoint takes POST alone: GET is 405 with `Allow: POST`")
def test_405(target: Target) -> None:
    answer = target.request("GET", "/")
    assert answer.status_code == 405
    assert "POST" in answer.headers["allow"]


@behaviour("4", "`AppException`: its own status, its message as `detail`")
def test_app_exception(target: Target) -> None:
    answer = target.post("/fails", {"prompt": "app"})
    assert (answer.status_code, answer.json()["detail"]) == (409, "the model is on holiday")


@behaviour("4", "`FieldException`: 422 with one entry for the field")
def test_field_exception(target: Target) -> None:
    answer = target.post("/fails", {"prompt": "field"})
    assert answer.status_code == 422
    [entry] = answer.json()["detail"]
    assert {key: entry[key] for key in ("loc", "msg", "type")} == {
        "loc": ["body", "prompt"],
        "msg": "must not be that",
        "type": "value_error",
    }


@behaviour("4", "an uncaught exception: 500, and nothing of its text")
def test_500(target: Target) -> None:
    answer = target.post("/fails", {"prompt": "anything"})
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert isinstance(answer.json()["detail"], str)


@behaviour("4", "SSE: `text/event-stream`, each `data:` one JSON document, the end is the end of the body")
def test_server_sent_events(target: Target) -> None:
    answer = target.post("/stream", {"prompt": "hello", "steps": 3}, headers={"accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data:") for line in answer.text.splitlines() if line.startswith("data:")]
    assert [json.loads(event) for event in events] == [{"step": 0}, {"step": 1}, {"step": 2}]


@pytest.mark.parametrize("path", ["/", "/stream"])
@behaviour("4", "CORS: the preflight of any origin lets POST and fal's headers through, for 600 s")
def test_preflight(target: Target, path: str) -> None:
    asked = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-fal-request-timeout",
    }
    answer = target.request("OPTIONS", path, headers=asked)
    assert answer.status_code in (200, 204)
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "content-type", "x-fal-request-timeout"))
    assert answer.headers["access-control-max-age"] == "600"


@behaviour(
    "4",
    "what a page of another origin may read of an answer",
    differs="Ours exposes `x-fal-request-id`, which the JS client's `requestId` is read from; fal's SDK leaves that "
    "to its gateway.",
)
def test_exposed_headers(target: Target) -> None:
    answer = target.post("/", {"prompt": "hello"}, headers={"origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    exposed = answer.headers.get("access-control-expose-headers", "").lower()
    assert ("x-fal-request-id" in exposed) == target.pick(fal=False, ours=True)


@behaviour(
    "4",
    "`x-fal-request-id` on every answer",
    differs="fal's gateway adds it; the SDK alone does not. Ours has no other gateway.",
)
def test_request_ids(target: Target) -> None:
    answers = [target.post("/", {"prompt": "hello"}), target.post("/", {}), target.post("/zzz", {})]
    ids = {answer.headers.get("x-fal-request-id") for answer in answers}
    assert len(ids - {None}) == target.pick(fal=0, ours=3)


@behaviour("4", "`x-fal-request-timeout`: 504 `request_timeout` with `x-fal-request-timeout-type: user`")
def test_request_timeout(ours: OurServer) -> None:
    target, run = Target("ours", ours), secrets.token_hex(4)
    answer = target.post(
        "/held", {"name": f"held {run}", "until": f"go {run}"}, headers={"x-fal-request-timeout": "0.5"}
    )
    with control(target) as app:
        app.announce(f"go {run}")
    assert (answer.status_code, answer.headers["x-fal-request-timeout-type"]) == (504, "user")
    assert answer.json()["error_type"] == answer.headers["x-fal-error-type"] == "request_timeout"


@behaviour(
    "4", "without credentials: 401 and a `detail`; a token in the query is enough, as JavaScript streams send it"
)
def test_credentials_over_http(ours: OurServer) -> None:
    url = f"{ours.http_url}/stream"
    refused = httpx.post(url, json={"prompt": "hello"})
    assert (refused.status_code, type(refused.json()["detail"])) == (401, str)
    token = ours.stack.mint(f"{APP}/stream")
    assert httpx.post(url, json={"prompt": "hello"}, params={"fal_jwt_token": token}).is_success
    elsewhere = httpx.post(ours.http_url, json={"prompt": "hello"}, params={"fal_jwt_token": token})
    assert (elsewhere.status_code, type(elsewhere.json()["detail"])) == (403, str)


@behaviour("3", "OpenAPI: a socket's path carries `x-fal-protocol`, and `x-fal-order-paths` lists all paths")
def test_openapi(target: Target) -> None:
    document = target.request("GET", "/openapi.json").json()
    assert {"/", "/realtime", "/echo"} <= set(document["x-fal-order-paths"])
    protocols = {path: item["x-fal-protocol"] for path, item in document["paths"].items() if "x-fal-protocol" in item}
    assert (protocols["/realtime"]["type"], protocols["/echo"]["type"]) == ("realtime", "websocket")
    modes = {path: protocol.get("realtimeMode") for path, protocol in protocols.items()}
    assert modes["/realtime"] == "unary"
    assert modes["/countdown/realtime"] == "server_streaming"
    assert modes["/sum/realtime"] == "client_streaming"
    assert modes["/double/realtime"] == "bidi"
    assert protocols["/newest/realtime"]["config"]["buffering"] == 2
    assert protocols["/batches/realtime"]["config"]["maxBatchSize"] == 4
    assert protocols["/codec/realtime"]["contentType"] == "text/plain"
    assert set(document["paths"]["/realtime"]["post"]) >= {"requestBody", "responses"}
