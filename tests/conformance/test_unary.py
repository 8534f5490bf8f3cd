"""Unary realtime endpoints: a result for each input (contract §2c, §2e, §3)."""

import secrets
from collections.abc import Callable

import msgpack

from tests.conformance.behaviours import behaviour
from tests.conformance.peer import NORMAL, TIMEOUT, control, peer
from tests.conformance.targets import Target


@behaviour("3", "unary: many inputs a socket, one result for each, in order")
def test_each_input_is_answered_in_order(target: Target) -> None:
    with peer(target, "/realtime") as socket:
        for number in range(10):
            socket.send(prompt=f"picture {number}")
        assert [socket.result()["output"] for _ in range(10)] == [f"picture {number}" for number in range(10)]


@behaviour("3", "a handler may be a coroutine; `setup()` has run before the first input")
def test_a_coroutine_answers_after_setup(target: Target) -> None:
    with peer(target, "/coroutine/realtime") as socket:
        assert socket.ask(prompt="hello")["output"] == "set up: hello"


@behaviour("2c", "inputs and results are binary msgpack maps; bytes stay `bin` both ways")
def test_bytes_stay_bytes(target: Target) -> None:
    with peer(target, "/untyped/realtime") as socket:
        result = socket.ask(image_bytes=b"\xff\xd8\x00", name="é", nested={"list": [1, 2.5, None, True]})
    assert result["received"] == {"image_bytes": b"\xff\xd8\x00", "name": "é", "nested": {"list": [1, 2.5, None, True]}}
    assert result["bytes"] == b"\x00\xff"


@behaviour("2e", "`request_id` is a field like others: echoed if the app echoes it, never required")
def test_request_id_is_the_apps_own(target: Target) -> None:
    with peer(target, "/realtime") as socket:
        assert socket.ask(prompt="with", request_id="one")["request_id"] == "one"
        assert socket.ask(prompt="without")["request_id"] == ""


@behaviour("3", "unknown fields are ignored; a field left out has the model's default")
def test_unknown_fields_are_ignored(target: Target) -> None:
    with peer(target, "/realtime") as socket:
        assert socket.ask(prompt="hello", enable_magic=True)["steps"] == 4


@behaviour("2e", "a result is what the handler gave, member for member")
def test_a_result_is_the_handlers(target: Target) -> None:
    with peer(target, "/realtime") as socket:
        assert socket.ask(prompt="hello") == {"output": "hello", "steps": 4, "request_id": ""}


@behaviour(
    "2c",
    "JSON text as input",
    differs="Ours reads it: older and other clients send text. fal's template ends the session over a KeyError.",
)
def test_json_text_is_an_input(target: Target) -> None:
    with peer(target, "/realtime") as socket:
        socket.socket.send('{"prompt": "as text"}')
        if target.pick(fal=False, ours=True):
            assert socket.result()["output"] == "as text"
        else:
            assert socket.control() == {"type": "x-fal-error", "error": "INTERNAL_ERROR", "reason": "'bytes'"}
            assert socket.end() == NORMAL


@behaviour(
    "2e", "idle: `session_timeout` seconds without an input end in fal's TIMEOUT message as text, then 1000; no timings"
)
def test_idle_is_timeout_and_1000(target: Target) -> None:
    with peer(target, "/impatient/realtime") as socket:
        socket.send(prompt="hello")
        results, controls, end = socket.rest()
    assert [result["output"] for result in results] == ["hello"]
    assert controls == [TIMEOUT]
    assert end == NORMAL


@behaviour(
    "2e",
    "a handler that works longer than `session_timeout`",
    differs="In ours work is not idleness: the clock starts when the result is out. "
    "fal counts from the input, and twice the time later gives up with an INTERNAL_ERROR without a reason.",
)
def test_work_is_not_idleness(target: Target) -> None:
    with peer(target, "/slow/realtime") as socket:
        socket.send(prompt="hello")
        results, controls, end = socket.rest()
    given_up = {"type": "x-fal-error", "error": "INTERNAL_ERROR", "reason": ""}
    assert [result["output"] for result in results] == target.pick(fal=[], ours=["hello"])
    assert controls == target.pick(fal=[given_up], ours=[TIMEOUT])
    assert end == NORMAL


@behaviour("2e", "`buffering=2` and f0…f7 while f0 is worked on: f0, f6, f7; the oldest that waits is dropped")
def test_buffering_keeps_the_newest(target: Target) -> None:
    assert [names for [names] in buffered(target, "/newest/realtime")[0]] == ["f0", "f6", "f7"]


@behaviour(
    "2e",
    "what was dropped is told",
    differs="Ours counts it in the next result, as `dropped_inputs`; fal tells nobody.",
)
def test_drops_are_counted(target: Target) -> None:
    drops = buffered(target, "/newest/realtime")[1]
    assert drops == target.pick(fal=[None, None, None], ours=[5, None, None])


@behaviour("2e", "`buffering=None`: every input is answered, in order")
def test_without_buffering_every_input_is_answered(target: Target) -> None:
    assert [names for [names] in buffered(target, "/every/realtime")[0]] == [f"f{number}" for number in range(8)]


@behaviour(
    "2e",
    "`?max_buffering=2` of the clients",
    differs="Ours does what the clients' documentation says of it: newest inputs win. No code of fal's SDK reads it.",
)
def test_the_clients_max_buffering(target: Target) -> None:
    answered = [names for [names] in buffered(target, "/every/realtime", "max_buffering=2")[0]]
    assert answered == target.pick(fal=[f"f{number}" for number in range(8)], ours=["f0", "f6", "f7"])


@behaviour("3", "`max_batch_size=4` and ten inputs that wait: one call and one result each for 4, 4 and 2")
def test_batches(target: Target) -> None:
    batches, _ = buffered(target, "/batches/realtime", count=11)
    assert [len(names) for names in batches] == [1, 4, 4, 2]
    assert [name for names in batches for name in names] == [f"f{number}" for number in range(11)]


@behaviour(
    "3", "`can_batch(other, current_batch_size)` is asked on the first input; a refused one begins the next batch"
)
def test_can_batch_ends_a_batch(target: Target) -> None:
    batches, _ = buffered(target, "/batches/realtime", count=7, batch=lambda number: "a" if number < 3 else "b")
    assert batches == [["f0"], ["f1", "f2"], ["f3", "f4", "f5", "f6"]]


@behaviour("3", "`decode_message` and `encode_message` replace msgpack; a string is sent as text")
def test_a_codec_of_ones_own(target: Target) -> None:
    with peer(target, "/codec/realtime") as socket:
        socket.socket.send(b"hello")
        assert socket.socket.recv(timeout=30) == "<hello>"


@behaviour("2c", "a message of a MiB is taken and answered")
def test_a_large_message(target: Target) -> None:
    with peer(target, "/untyped/realtime") as socket:
        socket.socket.send(msgpack.packb({"image_bytes": bytes(1 << 20)}))
        assert socket.result()["received"] == {"image_bytes": bytes(1 << 20)}


def buffered(
    target: Target, path: str, query: str = "", count: int = 8, batch: Callable[[int], str] = lambda number: ""
) -> tuple[list[list[str]], list[int | None]]:
    """Names and dropped_inputs of the results, if all inputs arrive while the first is worked on."""
    run = secrets.token_hex(4)  # the app outlives the test, and so does what was announced in it
    with control(target) as app, peer(target, path, query) as socket:
        socket.send(name=f"f0 {run}", until=f"go {run}")
        app.wait_for(f"f0 {run} has arrived")
        for number in range(1, count):
            socket.send(name=f"f{number} {run}", batch=batch(number))
        app.wait_for(f"f{count - 1} {run} has arrived")
        app.announce(f"go {run}")
        results = []
        while not results or results[-1]["names"][-1] != f"f{count - 1} {run}":
            results.append(socket.result())
    names = [[name.removesuffix(f" {run}") for name in result["names"]] for result in results]
    return names, [result.get("dropped_inputs") for result in results]
