"""Measurements that outlive the run that made them: written one by one, so that a run that is cut short can go on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Kept:
    """Measurements by key, in a JSON file. Those of another `subject` (machine, versions, model) are forgotten."""

    def __init__(self, path: Path, subject: dict[str, Any], head: dict[str, Any]) -> None:
        self._path = path
        found = json.loads(path.read_text()) if path.exists() else {}
        same = found.get("subject") == json.loads(json.dumps(subject))
        self.measurements: dict[str, Any] = found.get("measurements", {}) if same else {}
        self.not_run: dict[str, str] = {}
        self._head = {**head, "subject": subject}

    def measure(self, key: str, measurement: Callable[[], Any]) -> Any:
        """The measurement under `key`, made now if it is not there yet."""
        if key not in self.measurements:
            self.measurements[key] = measurement()
            self.not_run.pop(key, None)
            self.save()
        return self.measurements[key]

    def skip(self, key: str, reason: str) -> None:
        """Say why something was not measured, unless it was in an earlier run."""
        if key not in self.measurements:
            self.not_run[key] = reason
            self.save()

    def content(self) -> dict[str, Any]:
        """What is in the file."""
        return {**self._head, "measurements": self.measurements, "not_run": self.not_run}

    def save(self) -> None:
        """Write the file, whole or not at all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        staged = self._path.with_suffix(".staged")
        staged.write_text(json.dumps(self.content(), indent=2) + "\n")
        staged.replace(self._path)
