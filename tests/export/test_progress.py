"""What the person at the terminal sees while an export lasts. No torch needed."""

import re

import pytest

from runner.export.progress import TerminalProgress
from tests.export.terminal import on_a_terminal

SCRIPT = """
from runner.export.progress import TerminalProgress
with TerminalProgress() as progress:
    progress.fetching("fetching owner/model")
    progress.note("family lcm: because")
    progress.expect(2)
    for stage in ("loading [the] checkpoint", "tracing unet", "writing step.onnx"):
        progress.stage(stage)
        progress._bar.refresh()
"""


STAGES = """
from runner.export.progress import TerminalProgress
with TerminalProgress() as progress:
    progress.expect(12)
    for stage in ("tracing unet", "drawing the golden picture", "fusing latent-consistency/lcm-lora-sdxl at 0.8"):
        progress.stage(stage)
        progress._bar.refresh()
"""


def test_the_bar_keeps_its_place_on_a_narrow_terminal() -> None:
    shown = on_a_terminal("-c", STAGES, columns=80)
    lines = [re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", line) for line in re.split(r"[\r\n]", shown)]
    bars = [re.search("[━╸╺]+", line) for line in lines if "/12" in line]
    (place,) = {match.span() for match in bars if match}
    assert place[1] - place[0] == 24
    assert "drawing the golden picture" in shown


def test_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress() as progress:
        progress.fetching("fetching owner/model")
        progress.expect(2)
        progress.stage("loading [the] checkpoint")
        progress.note("x" * 200)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"  fetching owner/model\n  loading [the] checkpoint\n  {'x' * 200}\n"


def test_a_bar_on_a_terminal() -> None:
    shown = on_a_terminal("-c", SCRIPT)
    assert shown.index("fetching owner/model") < shown.index("family lcm: because") < shown.index("loading")
    assert "starting" not in shown
    steps = re.findall(r"(loading \[the\] checkpoint|tracing unet|writing step\.onnx).*?(\d)/(\d)", shown)
    assert dict.fromkeys(steps) == dict.fromkeys(
        [("loading [the] checkpoint", "0", "2"), ("tracing unet", "1", "2"), ("writing step.onnx", "2", "3")]
    )
