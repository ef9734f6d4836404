"""Progress on a terminal: a bar for the step at hand, a line for each that is over."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from pixsieve.engine.progress import Lines
from pixsieve.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self


class Bars(Lines):
    """Bars with count, rate and the time that is left.

    A context manager: it puts the terminal right again, however a run ends.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__(stream)
        self._console = Console(file=self._stream, highlight=False, markup=False)
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def start(self, step: str, total: int | None, unit: str) -> None:
        self._stop()
        super().start(step, total, unit)
        self._bar = Progress(
            TextColumn("{task.description:8}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[count]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(step, total=total, count=self._count_text())
        self._bar.start()

    def advance(self, count: int) -> None:
        self.count += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self.count, count=self._count_text())

    def finish(self, facts: Mapping[str, object]) -> None:
        self._stop()
        super().finish(facts)

    def log(self, message: str) -> None:
        self._console.print(Text(printable(message)), soft_wrap=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _count_text(self) -> str:
        share = f"/{self.total:,}" if self.total is not None else ""
        rate = f", {self.count / max(self.seconds, 1e-9):,.0f}/s" if self.count else ""
        return f"{self.count:,}{share} {self.unit}{rate}"
