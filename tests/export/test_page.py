"""docs/export.md says what the command takes and does. No torch needed."""

from pathlib import Path

import pytest

from runner import cli
from runner.export.families import DEFAULTS, FAMILIES

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text()


def test_every_flag_is_on_the_page() -> None:
    flags = {flag for parameter in cli.export.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    told = {flag for flag in flags if f"`{flag}`" in PAGE}
    assert flags - told == {"source", "out", "--json", "--golden"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_table_of_families_is_the_codes(family: str) -> None:
    (row,) = (line.split("|") for line in PAGE.splitlines() if line.startswith(f"| `{family}` |"))
    defaults = DEFAULTS[family]
    assert int(row[2]) == defaults.num_inference_steps
    assert float(row[3].split(",")[0]) == defaults.guidance_scale
