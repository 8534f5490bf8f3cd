"""What a handler raises to answer with an error of its own. The names and forms are fal's (fal.exceptions)."""

from dataclasses import dataclass


class RunnerException(Exception):
    """Base of what a handler may raise; its `message` is sent to the peer as it is."""

    message: str


@dataclass(eq=False)  # exceptions are compared by identity, and hashed
class AppException(RunnerException):
    """The request failed in a way that the app foresaw."""

    message: str
    status_code: int


@dataclass(eq=False)
class FieldException(RunnerException):
    """A field of the input is wrong in a way that its schema cannot say."""

    field: str
    message: str
    status_code: int = 422
    type: str = "value_error"
    billable_units: int | float | str | None = 0


@dataclass(eq=False)
class RequestCancelledException(RunnerException):
    """The work was given up because the client asked for it."""

    message: str = "Request cancelled by the client."
