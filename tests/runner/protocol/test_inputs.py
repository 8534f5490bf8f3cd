from dataclasses import dataclass
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator

from runner.protocol import failures
from runner.protocol.failures import Failure
from runner.protocol.inputs import Input, InputReader


class Cat(BaseModel):
    meows: int


class Dog(BaseModel):
    barks: int


@dataclass
class Bird:
    tweets: int


class Cursed(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def curse(cls, value: str) -> str:
        raise KeyError(value)


def read(reader: InputReader, **fields: Any) -> Any:
    return reader.read(msgpack.packb(fields)).content


def test_an_input_is_what_its_model_makes_of_it():
    assert read(InputReader(Cat), meows=1) == Cat(meows=1)
    assert read(InputReader(Cat | Dog), barks=2) == Dog(barks=2)
    assert read(InputReader(Bird), tweets=3) == Bird(3)
    assert read(InputReader(), anything=b"\xff") == {"anything": b"\xff"}


def test_what_does_not_fit_is_told_by_its_fields():
    failure = read(InputReader(Bird), tweets="many")
    assert isinstance(failure, Failure)
    assert failure.detail[0].loc == ["body", "tweets"]


@pytest.mark.parametrize("message", [b"twice", "twice"])
def test_a_codec_of_the_endpoints_own_gets_bytes(message):
    reader = InputReader(None, lambda received: {"received": received * 2, "request_id": "r"})
    assert reader.read(message) == Input({"received": b"twicetwice", "request_id": "r"}, 5, "r")


def test_a_codec_of_the_endpoints_own_may_make_the_input_itself():
    assert InputReader(Cat, lambda received: Cat(meows=len(received))).read(b"four").content == Cat(meows=4)


@given(st.binary() | st.text())
def test_a_codec_that_fails_is_an_answer(message):
    def explode(received: bytes) -> Any:
        raise LookupError(received)

    failure = InputReader(Cat, explode).read(message).content
    assert isinstance(failure, Failure)
    assert failure.detail[0].type == "decode_error"


@given(
    st.binary()
    | st.text()
    | st.dictionaries(st.text(), st.integers(-(2**63), 2**64 - 1) | st.binary()).map(msgpack.packb)
)
def test_whatever_comes_is_an_input_or_a_failure(message):
    content = InputReader(Cat).read(message).content
    assert isinstance(content, Cat | Failure)


def test_a_validator_that_fails_is_blamed_if_somebody_takes_the_blame():
    internal = failures.internal("some-id")
    assert read(InputReader(Cursed, blame=lambda error: internal), name="x") is internal
    with pytest.raises(KeyError):
        read(InputReader(Cursed), name="x")
