"""What the command line shows: steps, how far they are, tables, errors."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tamiz._json import json_text
from tamiz.types import GOES_ON

__all__ = ["Terminal", "errors", "figure", "note", "output", "print_json", "short", "table"]

_WIDTH = 160  # of tables that go to a file or a pipe
_EDGES, _BETWEEN = 1, 3  # blanks at the left of a table, and beside each column
_WIDEST_WORD = 24  # of a text column; what is longer is folded
_FIRST_LINE_S, _NEXT_LINE_S = 60.0, 30.0  # without a terminal, where short steps stay silent
# Texts, labels and paths are shown as they are: in none of them is `[a]` a style or `:heart:` a picture.
_PLAIN: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False, "soft_wrap": True}
output = Console(**_PLAIN, width=None if sys.stdout.isatty() else _WIDTH)
errors = Console(**_PLAIN, stderr=True)


def note(text: str) -> None:
    """Tell a person something besides the result, on standard error."""
    errors.print(Text.assemble(("note", "yellow"), f"  {text}"))


def short(text: str, most: int) -> str:
    """Return a text on one line, of so many characters at most.

    Example:
        >>> short("two  words", 6)
        'two w…'
    """
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def print_json(value: Any) -> None:
    """Print a value for machines: one JSON document on standard output; figures that are none are null."""
    sys.stdout.write(json_text(value, indent=1) + "\n")


def figure(value: float | None, interval: Sequence[float] | None = None) -> str:
    """Render a figure, with its interval if there is one.

    Example:
        >>> figure(0.91234, (0.9, 0.92))
        '0.912 (0.900-0.920)'
    """
    if value is None:
        return "-"
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    text = f"{value:,.{digits}f}"
    return text if interval is None else f"{text} ({interval[0]:.3f}-{interval[1]:.3f})"


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, first_left: int = 1
) -> TextTable:
    """Make a table whose first columns are text and the others numbers."""
    cells = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    return TextTable(title, [Text(name) for name in columns], cells, min(first_left, len(columns)))


@dataclass(frozen=True)
class TextTable:
    """A table; where numbers do not all find room beside the text, they go on below, and the text is told again."""

    title: str
    columns: Sequence[Text]
    rows: Sequence[Sequence[Text]]
    texts: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield one table, or the parts of a wide one."""
        title: Text | None = Text(self.title, "bold")
        for places in self._parts(options.max_width):
            made = Table(title=title, box=SIMPLE, padding=(0, 1), title_justify="left", header_style="bold")
            for place in places:
                number = place >= self.texts
                justify: JustifyMethod = "right" if number else "left"
                made.add_column(self.columns[place], justify=justify, no_wrap=number, overflow="fold")
            for row in self.rows:
                made.add_row(*(row[place] for place in places))
            yield made
            title = None

    def _parts(self, width: int) -> Iterator[list[int]]:
        """Yield the columns of each part: all text and, of the numbers, as many as find room, one at least."""
        texts = list(range(self.texts))
        free = width - _EDGES - sum(self._least(place) for place in texts)
        part: list[int] = []
        room = free
        for place in range(self.texts, len(self.columns)):
            needed = self._least(place)
            if part and needed > room:
                yield texts + part
                part, room = [], free
            part.append(place)
            room -= needed
        yield texts + part

    def _least(self, place: int) -> int:
        """Return the least width of a column: of numbers all of it, of text its longest word."""
        cells = [self.columns[place], *(row[place] for row in self.rows)]
        if place >= self.texts:
            return max(cell.cell_len for cell in cells) + _BETWEEN
        words = [cell_len(word) for cell in cells for word in cell.plain.split()]
        return min(max(words, default=0), _WIDEST_WORD) + _BETWEEN


@dataclass
class Terminal:
    """Tell a person what a run does, on standard error: with bars at a terminal, else with a line now and then.

    Attributes:
        quiet: say nothing.
        first_line_s: without a terminal, seconds of a step before it says how far it is.
        next_line_s: least seconds between two such lines.

    As a context manager it takes the bar away in the end.
    """

    quiet: bool = False
    first_line_s: float = _FIRST_LINE_S
    next_line_s: float = _NEXT_LINE_S
    _step: str | None = field(default=None, init=False)
    _due: float = field(default=0.0, init=False)
    _bar: Progress | None = field(default=None, init=False)
    _tasks: dict[str, Any] = field(default_factory=dict, init=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def started(self, step: str) -> None:
        """Show a bar while the step runs; without a terminal, note when it began."""
        self._step, self._due = step, time.monotonic() + self.first_line_s
        if errors.is_terminal and not self.quiet:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=errors,
                transient=True,
            )
            self._bar.start()
            self._tasks = {"": self._bar.add_task(step, total=None)}

    def progress(self, message: str, done: int = 0, total: int = 0) -> None:
        """Move the bar; without one, write a line if the last is long ago. Where a step goes on, always write it."""
        if message.rpartition(": ")[2].startswith(GOES_ON):
            self.notice(message)
        elif self._bar is None:
            self._write_progress(message, done, total)
        else:
            self._move_bar(self._bar, message, done, total)

    def _move_bar(self, bar: Progress, message: str, done: int, total: int) -> None:
        step = message.rpartition(": ")[0] or message  # what follows changes as it goes on
        if step not in self._tasks:
            self._tasks[step] = bar.add_task(message, total=total or None)
        bar.update(self._tasks[step], completed=done, total=total or None, description=message)

    def finished(self, step: str, summary: str) -> None:
        """Write a line for a step that did its work."""
        self._line("green", "done", step, summary)

    def skipped(self, step: str, why: str) -> None:
        """Write a line for a step with nothing to do."""
        self._line("cyan", "skip", step, why)

    def notice(self, text: str) -> None:
        """Write a notice."""
        if not self.quiet:
            note(text)

    def close(self) -> None:
        """Take away the bar."""
        self._step = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _write_progress(self, message: str, done: int, total: int) -> None:
        if self.quiet or self._step is None or time.monotonic() < self._due:
            return
        self._due = time.monotonic() + self.next_line_s
        of = f" ({done:,} of {total:,})" if total else ""
        errors.print(Text.assemble(("now", "blue"), f"   {self._step:<9} {message}{of}"))

    def _line(self, style: str, word: str, step: str, text: str) -> None:
        self.close()
        if not self.quiet:
            errors.print(Text.assemble((word, style), f"  {step:<9} {text}"))
