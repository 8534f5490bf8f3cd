"""What an export tells about itself while it lasts: minutes for a small model, an hour for SDXL on a laptop."""

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Column

_WORDS, _BAR = 36, 24
"""Columns: with the spinner, the count and the time they fit into a terminal of 80."""


class Progress:
    """Takes it all in silence."""

    def fetching(self, words: str) -> None:
        """Something is about to be downloaded, unless the cache has it. huggingface_hub shows how far it is."""

    def expect(self, stages: int) -> None:
        """About how many stages there will be."""

    def stage(self, words: str) -> None:
        """The next stage begins."""

    def note(self, words: str) -> None:
        """Something that the exporter decided, or that could be done better."""


class TerminalProgress(Progress):
    """Notes and a bar on stderr; where that is no terminal, a line for each stage."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn(
                "{task.description}",
                markup=False,
                table_column=Column(width=_WORDS, no_wrap=True, overflow="ellipsis"),
            ),
            BarColumn(bar_width=_BAR),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._begun = 0
        self._expected = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hide()

    def fetching(self, words: str) -> None:
        """Say it in a line of its own: the bars of the files come below."""
        self._hide()
        self._line(words)

    def expect(self, stages: int) -> None:
        """Give the bar its length."""
        self._expected = stages

    def stage(self, words: str) -> None:
        """Move the bar on, or write a line."""
        done, self._begun = self._begun, self._begun + 1
        if not self._console.is_terminal:
            self._line(words)
        else:
            self._bar.update(self._task, description=words, completed=done, total=max(self._expected, self._begun))
            self._bar.start()

    def note(self, words: str) -> None:
        """Write a line; it stays above the bar."""
        self._line(words)

    def _hide(self) -> None:
        if self._console.is_terminal:  # elsewhere rich would end a bar that it never showed with an empty line
            self._bar.stop()

    def _line(self, words: str) -> None:
        self._console.print(f"  {words}", markup=False)
