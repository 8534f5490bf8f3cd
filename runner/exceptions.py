"""Where apps written for fal look for these: `from fal.exceptions import …` with `runner` for `fal`."""

from runner.apps.exceptions import AppException, FieldException, RequestCancelledException

__all__ = ["AppException", "FieldException", "RequestCancelledException"]
