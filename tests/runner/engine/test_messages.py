import contextlib

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.engine import messages
from runner.engine.messages import MessageError, decode_message, encode_message
from runner.engine.request import (
    Activity,
    EngineStatistics,
    GeneratedImage,
    GenerationRequest,
    GenerationResult,
    ModelCard,
    StepPreview,
)

integers = st.integers(0, 2**63 - 1)
words = st.text(max_size=40)
numbers = st.floats(allow_nan=False)
requests = st.builds(
    GenerationRequest,
    prompt=words,
    width=integers,
    height=integers,
    num_inference_steps=integers,
    guidance_scale=numbers,
    seed=integers,
    image=st.none() | st.binary(),
    mask=st.none() | st.binary(),
    check_safety=st.booleans(),
    previews=st.booleans(),
)
images = st.builds(GeneratedImage, st.binary(), words, integers, integers)
counts = st.dictionaries(words, integers, max_size=3)
results = st.builds(
    GenerationResult, st.lists(images, max_size=3), st.dictionaries(words, numbers, max_size=3), st.lists(st.booleans())
)
statistics = st.builds(
    EngineStatistics, integers, counts, counts, numbers, counts, *(integers, integers, integers, integers, integers)
)
cards = st.builds(
    ModelCard,
    *(words, words, integers, integers, integers, numbers, integers, integers),
    st.dictionaries(words, st.tuples(integers, integers), max_size=3),
)
every_message = st.one_of(
    st.builds(messages.Generate, integers, requests, words),
    st.builds(messages.Cancel, integers),
    st.builds(messages.Loading, st.builds(Activity, words, integers, integers)),
    st.builds(messages.Ready, cards),
    st.builds(messages.CannotStart, words),
    st.builds(messages.Started, integers),
    st.builds(messages.Progress, integers),
    st.builds(messages.Preview, integers, st.builds(StepPreview, integers, integers, images)),
    st.builds(messages.Finished, integers, results),
    st.builds(messages.Refused, integers, words, words, words),
    st.builds(messages.Failed, integers, words),
    st.builds(messages.Statistics, statistics),
)


@given(every_message)
def test_a_message_comes_out_as_it_went_in(message: messages.Message) -> None:
    assert decode_message(encode_message(message)) == message


def test_the_wire_form_of_a_request() -> None:
    """Frozen: a gateway and a worker of different builds would disagree silently otherwise."""
    request = GenerationRequest("a star", 64, 48, 4, 8.0, 7, image=b"\xff\xd8")
    assert msgpack.unpackb(encode_message(messages.Generate(3, request, "socket 5"))) == {
        "type": "generate",
        "id": 3,
        "flow": "socket 5",
        "request": {
            "prompt": "a star",
            "width": 64,
            "height": 48,
            "num_inference_steps": 4,
            "guidance_scale": 8.0,
            "seed": 7,
            "negative_prompt": "",
            "num_images": 1,
            "image": b"\xff\xd8",
            "image_field": "image_bytes",
            "mask": None,
            "mask_field": "mask_bytes",
            "strength": 1.0,
            "guidance_rescale": 0.0,
            "check_safety": True,
            "output_format": "jpeg",
            "previews": False,
        },
    }


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x93",
        msgpack.packb(1),
        msgpack.packb({}),
        msgpack.packb({"type": "dance"}),
        msgpack.packb({"type": "cancel"}),
        msgpack.packb({"type": "cancel", "id": "x"}),
        msgpack.packb({"type": "cancel", "id": 1}) + b"\0",
        msgpack.packb({"type": "loading", "detail": b"\xff"}),
        b"\x81" * 5000,
    ],
)
def test_what_is_no_message(payload: bytes) -> None:
    with pytest.raises(MessageError):
        decode_message(payload)


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_the_documented_error(payload: bytes) -> None:
    with contextlib.suppress(MessageError):
        decode_message(payload)
