"""What a person sees while a command runs: bars with the time left, a line per validation, result tables."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_COLUMNS = {
    "mpjpe_mm": "MPJPE mm",
    "pa_mpjpe_mm": "PA-MPJPE mm",
    "mpve_mm": "MPVE mm",
    "n_mpjpe_mm": "N-MPJPE mm",
    "velocity_mm_per_frame": "velocity mm/frame",
    "accel_mm_per_s2": "accel mm/s²",
    "pck_percent": "PCK %",
    "auc_percent": "AUC %",
}


class ProgressDisplay:
    """Writes to a terminal, or, where there is none, only lines that last."""

    def __init__(self) -> None:
        self.console = Console(markup=False)  # file names may have brackets
        self._training: Progress | None = None

    @contextmanager
    def task(self, description: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """A bar (a spinner without `total`) around a piece of work; yields a function that counts one."""
        columns = [TextColumn("{task.description}"), TimeElapsedColumn()]
        columns += [SpinnerColumn()] if total is None else [BarColumn(), MofNCompleteColumn()]
        columns += [] if total is None else [TimeRemainingColumn(), TextColumn("left")]
        with Progress(*columns, console=self.console) as progress:
            bar = progress.add_task(description, total=total)
            yield lambda: progress.advance(bar)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Around a whole training run; `advance` and `report` are for inside it."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("left · {task.fields[state]}"),
        )
        with Progress(*columns, console=self.console) as progress:
            self._training = progress
            self._bar = progress.add_task("Training", total=1.0, state="")
            yield
        self._training = None

    def advance(self, share: float, seconds: float, step: int, loss: float) -> None:
        """One optimiser step."""
        assert self._training is not None
        state = f"step {step} · {seconds:.0f} s · loss {loss:.4f}"
        self._training.update(self._bar, completed=share, state=state)

    def say(self, *sentences: str | None) -> None:
        """A line for each, as long as it is; None says nothing."""
        for sentence in sentences:
            if sentence is not None:
                self.console.print(sentence, soft_wrap=True)

    def report(self, errors: Mapping[str, float | int]) -> None:
        """A line about one validation."""
        numbers = " · ".join(f"{title} {errors[key]:.1f}" for key, title in _COLUMNS.items() if key in errors)
        line = f"step {errors['step']:.0f} · {errors['seconds']:.0f} s · {numbers}"
        self.console.print(line, highlight=False, soft_wrap=True)

    def table(self, title: str, rows: Mapping[str, Mapping[str, float | int]]) -> None:
        """One row per model or sequence, one column per metric."""
        table = Table(title=title, title_justify="left")
        table.add_column("", overflow="fold")
        shown = [key for key in _COLUMNS if all(key in errors for errors in rows.values())]
        for key in shown:
            table.add_column(_COLUMNS[key], justify="right")
        for name, errors in rows.items():
            table.add_row(name, *(f"{errors[key]:.1f}" for key in shown))
        self.console.print(table)
