"""The AsyncAPI description: valid by the initiative's own schema, and true of what goes over the wire."""

import gzip
import json
import uuid
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jsonschema import Draft7Validator

from deploy import asyncapi as asyncapi_file
from runner import asyncapi
from runner.protocol.http_over_websocket import end_message, start_message
from schemas.errors import CloseCode
from tests.runner.doors.door import in_thread, running_door

# From the npm package @asyncapi/specs 6.11.1, Apache-2.0, Copyright 2016-2025 AsyncAPI Initiative.
SPECIFICATION = Path(__file__).parent.parent / "schemas" / "asyncapi-3.0.0.json.gz"
DOCUMENT = asyncapi.document()
MESSAGES = DOCUMENT["components"]["messages"]


def validator(message: str) -> Draft7Validator:
    return Draft7Validator({**MESSAGES[message]["payload"], "components": DOCUMENT["components"]})


def as_json(message: Any) -> Any:
    """As a reader of JSON sees it: bytes are strings there."""
    return json.loads(json.dumps(message, default=lambda value: value.decode("latin-1")))


def test_asyncapi_yaml_is_the_codes() -> None:
    assert asyncapi_file.FILE.read_text() == asyncapi_file.text(), "run: make docs"


def test_it_is_valid_asyncapi() -> None:
    specification = json.loads(gzip.decompress(SPECIFICATION.read_bytes()))
    jsonschema.validate(as_json(DOCUMENT), specification, Draft7Validator)


def test_the_specification_finds_mistakes() -> None:
    specification = json.loads(gzip.decompress(SPECIFICATION.read_bytes()))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**as_json(DOCUMENT), "asyncapi": "2.6.0"}, specification, Draft7Validator)


def test_every_reference_leads_somewhere() -> None:
    references = [value for key, value in walk(DOCUMENT) if key == "$ref"]
    assert references
    for reference in references:
        place: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
        assert place


def walk(value: Any) -> Any:
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


@pytest.mark.parametrize("message", MESSAGES)
def test_the_examples_are_what_their_schemas_say(message: str) -> None:
    for example in MESSAGES[message]["examples"]:
        validator(message).validate(as_json(example["payload"]))


def test_every_close_code_is_explained() -> None:
    assert set(asyncapi.CLOSE_CODES) == set(CloseCode)


def test_what_a_door_sends_is_what_is_described() -> None:
    def talk() -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        with door.client() as client:
            return client.ask(prompt="a star"), client.ask(), client.ask(prompt="a star", seed=-1)

    with running_door() as door:
        result, missing, wrong = in_thread(talk)
    validator("result").validate(as_json(result))
    assert set(result) == set(DOCUMENT["components"]["schemas"]["RealtimeOutput"]["properties"])
    for error in (missing, wrong):
        validator("error").validate(error)
        assert error["detail"]
    with pytest.raises(jsonschema.ValidationError):
        validator("result").validate(missing)


def test_the_frame_of_http_over_websocket_is_what_is_described() -> None:
    request_id = str(uuid.uuid4())
    validator("start").validate(json.loads(start_message(request_id, 200, [("content-type", "text/plain")])))
    validator("end").validate(json.loads(end_message(request_id, 500, 0.25)))
    with pytest.raises(jsonschema.ValidationError):
        validator("end").validate(json.loads(start_message(request_id, 200, [])))
