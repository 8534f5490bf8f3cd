"""Field errors say where and what, and send no picture, no prompt and no Python back."""

import pytest
from pydantic import BaseModel, ValidationError

from runner.protocol import failures
from runner.protocol.failures import Failure
from schemas.errors import RealtimeErrorCode
from schemas.images import RealtimeInput


def failure(model: type[BaseModel] = RealtimeInput, **fields: object) -> Failure:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    return failures.invalid_input(caught.value, fields)


def test_a_missing_field() -> None:
    found = failure()
    assert found.code is RealtimeErrorCode.VALIDATION_ERROR
    assert found.reason == "prompt: Field required"
    assert [entry.model_dump() for entry in found.detail] == [
        {"loc": ["body", "prompt"], "msg": "Field required", "type": "missing"}
    ]


def test_a_bound_is_named_with_the_small_input_beside_it() -> None:
    (entry,) = failure(prompt="a star", num_inference_steps=99).detail
    assert entry.model_dump() == {
        "loc": ["body", "num_inference_steps"],
        "msg": "Input should be less than or equal to 50",
        "type": "less_than_equal",
        "input": 99,
        "ctx": {"le": 50},
    }


def test_several_fields_are_counted_in_the_reason() -> None:
    found = failure(prompt=7, seed=-1)
    assert found.reason == "prompt: Input should be a valid string (and 1 more, see detail)"
    assert [entry.loc for entry in found.detail] == [["body", "prompt"], ["body", "seed"]]


@pytest.mark.parametrize(
    ("image_size", "locs"),
    [
        ("banana", [["body", "image_size"]] * 2),
        ({"width": 0, "height": 8}, [["body", "image_size"], ["body", "image_size", "width"]]),
        ({"width": 8}, [["body", "image_size"], ["body", "image_size", "height"]]),
    ],
)
def test_a_union_s_member_names_are_not_in_the_location(image_size: object, locs: list) -> None:
    assert [entry.loc for entry in failure(prompt="a star", image_size=image_size).detail] == locs


def test_an_element_of_a_list_is_located_by_its_index() -> None:
    class Points(BaseModel):
        points: list[int]

    assert failure(Points, points=[1, "x"]).detail[0].loc == ["body", "points", 1]


def test_a_rule_over_two_fields_keeps_our_words() -> None:
    found = failure(prompt="a star", image_bytes=b"x", image_url="data:,")
    assert found.reason == "send image_bytes or image_url, not both"
    assert found.detail[0].loc == ["body"]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "secret" * 5000},
        {"prompt": b"\xff secret"},
        {"prompt": "x", "image_bytes": "secret" * 1000},
        {"prompt": "x", "image_url": b"\xff secret"},
        {"prompt": "x", "image_bytes": b"secret", "image_url": "x"},
        {"prompt": ["secret"]},
    ],
)
def test_large_and_binary_inputs_are_not_sent_back(fields: dict) -> None:
    assert "secret" not in failure(**fields).message().model_dump_json()


def test_text_in_image_bytes_is_told_to_be_no_bytes() -> None:
    assert failure(prompt="x", image_bytes="aGk=").reason == "image_bytes: Input should be a valid bytes"


def test_the_list_of_fields_is_bounded() -> None:
    class Many(BaseModel):
        numbers: list[int]

    assert len(failure(Many, numbers=["x"] * 1000).detail) == failures.DETAIL_MAX


def test_a_message_is_paired_and_holds_only_what_it_needs() -> None:
    message = failures.internal("e1").message("r1").model_dump(exclude_none=True, mode="json")
    assert message == {
        "type": "x-fal-error",
        "error": "INTERNAL_ERROR",
        "reason": "the request failed on the server: its log has the cause under this error_id",
        "request_id": "r1",
        "error_id": "e1",
    }


def test_a_field_that_only_the_app_can_judge() -> None:
    found = failures.invalid_field("image_size", "at most 16384 pixels", "image_too_large")
    assert found.reason == "image_size: at most 16384 pixels"
    assert found.detail[0].model_dump() == {
        "loc": ["body", "image_size"],
        "msg": "at most 16384 pixels",
        "type": "image_too_large",
    }
