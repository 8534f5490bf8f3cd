"""Whole numbers in JSON."""

from typing import Any

from pydantic import field_validator


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole_numbers(*fields: str) -> Any:
    """Lets strict integer fields of a model take 120.0 for 120, which JSON has as the same number.

    So JSON Schema sees it too (2020-12 validation §6.1.1), and languages with one kind of number write either.
    "120" and true stay refused.
    """
    return field_validator(*fields, mode="before")(_whole)
