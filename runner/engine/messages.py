"""What the gateway and a worker say to each other: one msgpack map a frame, `type` says which.

gateway to worker: Generate, Cancel.
worker to gateway: Loading …, then Ready or CannotStart; for each Generate Started, Progress … while it takes long,
Preview … if it wants them, then one of Finished, Refused, Failed. A cancelled generation may end without a word.
Statistics in between, once a second at most. Many generations may be under way at once.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import msgpack
from pydantic import Field, TypeAdapter, ValidationError

from runner.engine.request import (
    Activity,
    EngineStatistics,
    GenerationRequest,
    GenerationResult,
    ModelCard,
    StepPreview,
)


@dataclass(frozen=True, slots=True)
class Generate:
    """Run this request; `id` is the gateway's own, `flow` who it is for (`request.FLOW`)."""

    id: int
    request: GenerationRequest
    flow: str = ""
    type: Literal["generate"] = "generate"


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody waits for this one any more. Unknown ids are no error: its answer may be on its way."""

    id: int
    type: Literal["cancel"] = "cancel"


@dataclass(frozen=True, slots=True)
class Loading:
    """The worker is starting, and does this now."""

    activity: Activity
    type: Literal["loading"] = "loading"


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker takes requests."""

    card: ModelCard
    type: Literal["ready"] = "ready"


@dataclass(frozen=True, slots=True)
class CannotStart:
    """The worker will exit, and so would the next: `detail` tells the operator what to mend."""

    detail: str
    type: Literal["cannot_start"] = "cannot_start"


@dataclass(frozen=True, slots=True)
class Started:
    """The worker has this request in hand from now on: if it dies, this request may be why."""

    id: int
    type: Literal["started"] = "started"


@dataclass(frozen=True, slots=True)
class Progress:
    """The worker is still at this request and has got further. Without it, silence would mean nothing."""

    id: int
    type: Literal["progress"] = "progress"


@dataclass(frozen=True, slots=True)
class Preview:
    """A step of the request, for those that want `previews`."""

    id: int
    preview: StepPreview
    type: Literal["preview"] = "preview"


@dataclass(frozen=True, slots=True)
class Finished:
    """The request's result."""

    id: int
    result: GenerationResult
    type: Literal["finished"] = "finished"


@dataclass(frozen=True, slots=True)
class Refused:
    """The request can never succeed: the members of an InvalidRequest."""

    id: int
    field: str
    message: str
    kind: str
    type: Literal["refused"] = "refused"


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine failed on the request; the worker's log has the cause under `error_id`."""

    id: int
    error_id: str
    type: Literal["failed"] = "failed"


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the worker has counted since it was ready."""

    statistics: EngineStatistics
    type: Literal["statistics"] = "statistics"


FromGateway = Generate | Cancel
FromWorker = Loading | Ready | CannotStart | Started | Progress | Preview | Finished | Refused | Failed | Statistics
Message = FromGateway | FromWorker


class MessageError(Exception):
    """A payload is no message."""


_MESSAGE: Final[TypeAdapter[Message]] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def encode_message(message: Message) -> bytes:
    """The payload of a message."""
    payload: bytes = msgpack.packb(_MESSAGE.dump_python(message))
    return payload


def decode_message(payload: bytes) -> Message:
    """The message of a payload.

    Raises:
        MessageError: it is not msgpack, or not one of the messages above.
    """
    try:
        unpacked: Any = msgpack.unpackb(payload)
        return _MESSAGE.validate_python(unpacked)
    except (ValueError, msgpack.UnpackException, ValidationError) as error:
        raise MessageError("not a message") from error
