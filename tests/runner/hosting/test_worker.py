"""What the process of an app tells the operator of an app that it cannot serve."""

import sys
from pathlib import Path

import pytest

from runner.hosting.worker import CannotServe, load


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("import fal", "No module named 'fal'; write `import runner as fal`"),
        ("from fal.toolkit import Image", "No module named 'fal'; write `import runner as fal`"),
        ("import runner.toolkit", "No module named 'runner.toolkit'; docs/apps.md says what there is of fal's package"),
        ("import no_such_package", "No module named 'no_such_package'; install it where the runner is installed"),
        ("import weights.missing", "No module named 'weights'; install it where the runner is installed"),
        ("1 / 0", "ZeroDivisionError: division by zero; the log has the line"),
        ("def", "SyntaxError: invalid syntax (broken.py, line 1); the log has the line"),
        ("import runner\n@runner.endpoint('x')\ndef f(): ...", "imported: the path 'x' must begin with a slash"),
        ("", "broken has no class Mine that is derived from runner.App"),
    ],
)
def test_an_app_that_cannot_be_loaded_says_why_and_what_to_do(
    source: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(CannotServe) as cannot:
        load("broken:Mine")
    assert words in str(cannot.value)


def test_a_module_that_is_nowhere_is_to_be_looked_for_in_another_folder() -> None:
    with pytest.raises(CannotServe, match=r"No module named 'nowhere'; start the runner in the folder that holds it"):
        load("nowhere.apps:Mine")
