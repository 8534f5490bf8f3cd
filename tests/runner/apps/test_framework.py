from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Optional

import pytest
from pydantic import BaseModel

import runner
from runner.apps.framework import (
    App,
    DeclarationError,
    HttpDeclaration,
    Mode,
    RawSocketDeclaration,
    RealtimeDeclaration,
    declarations,
    endpoint,
    realtime,
    signature_of,
)


class Input(BaseModel):
    prompt: str


class Output(BaseModel):
    output: str


def only(app: type[App]) -> RealtimeDeclaration:
    (declared,) = declarations(app)
    assert isinstance(declared, RealtimeDeclaration)
    return declared


def test_the_kinds_of_endpoint():
    class Every(App, keep_alive=300):
        machine_type = "GPU-H100"

        @endpoint("/")
        def generate(self, input: Input) -> Output: ...

        @endpoint("/ws", is_websocket=True)
        async def socket(self, websocket: runner.WebSocket) -> None: ...

        @realtime("/realtime", buffering=2)
        def generate_rt(self, input: Input) -> Output: ...

    assert declarations(Every) == (
        HttpDeclaration("/", "generate"),
        RawSocketDeclaration("/ws", "socket"),
        RealtimeDeclaration("/realtime", "generate_rt", Mode.UNARY, Input, Output, 2),
    )
    assert Every.keep_alive == 300


def unary(self: Any, input: Input) -> Output: ...
def batched(self: Any, first: Input, *rest: Input) -> Output: ...
def untyped(self, input): ...
def maps(self: Any, input: dict[str, Any]) -> dict[str, Any]: ...
def unions(self: Any, input: Input | Output) -> Any: ...
def generator(self: Any, input: Input) -> Iterator[Output]: ...
async def async_generator(self: Any, input: Input) -> AsyncIterator[Output]: ...
async def client(self: Any, inputs: AsyncIterator[Input]) -> Output: ...
async def bidi(self: Any, inputs: AsyncIterator[Input]) -> AsyncIterator[Output]: ...
async def bare(self: Any, inputs: AsyncIterator) -> AsyncIterator: ...


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (unary, (Mode.UNARY, Input, Output)),
        (batched, (Mode.UNARY, Input, Output)),
        (untyped, (Mode.UNARY, None, None)),
        (maps, (Mode.UNARY, None, None)),
        (unions, (Mode.UNARY, Input | Output, None)),
        (generator, (Mode.SERVER_STREAMING, Input, Output)),
        (async_generator, (Mode.SERVER_STREAMING, Input, Output)),
        (client, (Mode.CLIENT_STREAMING, Input, Output)),
        (bidi, (Mode.BIDIRECTIONAL, Input, Output)),
        (bare, (Mode.BIDIRECTIONAL, None, None)),
    ],
)
def test_annotations_say_mode_and_models(handler, expected):
    assert signature_of(handler) == expected


def test_models_of_a_function_around_the_class_are_found_though_annotations_are_strings():
    class Local(BaseModel):
        prompt: str

    class Inside(App):
        @realtime("/realtime")
        def generate(self, input: Local) -> list[Local]: ...

        @endpoint("/")
        def post(self, input: Local) -> Local: ...

    declared, post = declarations(Inside)
    assert (declared.input_model, declared.output_model) == (Local, list[Local])
    assert post.annotations == {"input": Local, "return": Local}


def test_strings_inside_annotations_are_read_too():
    class Local(BaseModel):
        prompt: str

    async def handle(self, inputs): ...

    handle.__annotations__ = {"inputs": AsyncIterator["Local"], "return": Optional["Local"]}

    class Inside(App):
        handler = realtime("/realtime")(handle)

    assert (only(Inside).input_model, only(Inside).output_model) == (Local, Local | None)


def test_a_name_that_is_nowhere_is_named():
    class Inside(App):
        @realtime("/realtime")
        def generate(self, input: Nowhere) -> Output: ...  # noqa: F821

    with pytest.raises(DeclarationError, match=r"Inside\.generate: its annotations use Nowhere.*above the class"):
        declarations(Inside)


def logged(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def call(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **kwargs)

    return call


def test_decorators_above_and_below_ours():
    class Decorated(App):
        @realtime("/realtime")
        @logged
        async def below(self, inputs: AsyncIterator[Input]) -> AsyncIterator[Output]: ...

    class Above(App):
        @logged
        @realtime("/realtime")
        def above(self, input: Input) -> Output: ...

    assert only(Decorated).mode is Mode.BIDIRECTIONAL
    assert only(Above).input_model is Input


def test_endpoints_are_inherited_and_overridden():
    class Base(App):
        @realtime("/realtime")
        def generate(self, input: Input) -> Output: ...

        @endpoint("/old")
        def old(self, input: Input) -> Output: ...

    class Child(Base):
        @realtime("/realtime", buffering=1)
        def generate(self, input: Input) -> Output: ...

        def old(self, input: Input) -> Output: ...

    assert only(Child).buffering == 1


def test_the_model_may_be_said_instead_of_annotated():
    class Said(App):
        @realtime("/realtime", input_modal=Input, output_modal=Output)
        def generate(self, input, *rest): ...

    assert (only(Said).input_model, only(Said).output_model) == (Input, Output)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"buffering": 0}, "buffering must be at least 1"),
        ({"max_batch_size": 0}, "max_batch_size must be at least 1"),
        ({"session_timeout": 0}, "session_timeout must be more than 0"),
    ],
)
def test_values_that_cannot_be(options, words):
    with pytest.raises(DeclarationError, match=words):
        realtime("/realtime", **options)


def test_a_path_has_no_parameters():
    with pytest.raises(DeclarationError, match=r"'/items/\{name\}' has a parameter: take it as a field"):
        endpoint("/items/{name}")


def test_a_path_begins_with_a_slash():
    with pytest.raises(DeclarationError, match="'realtime' must begin with a slash"):
        realtime("realtime")


def test_one_decorator_a_method_and_one_method_a_path():
    with pytest.raises(DeclarationError, match="generate has an endpoint already"):

        class Twice(App):
            @endpoint("/")
            @realtime("/realtime")
            def generate(self, input: Input) -> Output: ...

    class Doubled(App):
        @realtime("/realtime")
        def one(self, input: Input) -> Output: ...

        @endpoint("/realtime", is_websocket=True)
        async def two(self, websocket: runner.WebSocket) -> None: ...

        @endpoint("/realtime")
        def three(self, input: Input) -> Output: ...

    with pytest.raises(DeclarationError, match="Doubled has several endpoints at /realtime"):
        declarations(Doubled)


def test_a_stream_of_inputs_needs_an_asynchronous_handler():
    class Blocking(App):
        @realtime("/realtime")
        def generate(self, inputs: AsyncIterator[Input]) -> Output: ...

    with pytest.raises(DeclarationError, match=r"takes a stream of inputs \(client_streaming\): write `async def`"):
        declarations(Blocking)


def test_importing_the_package_loads_no_framework():
    code = "import runner, sys; assert not {'fastapi', 'pydantic', 'gevent'} & set(sys.modules); runner.App"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_has_what_an_app_takes_from_fals():
    import fastapi

    assert runner.WebSocket is fastapi.WebSocket
    assert all(hasattr(runner, name) for name in runner.__all__)
    assert runner.exceptions.FieldException("prompt", "is rude").status_code == 422
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = runner.Nothing
