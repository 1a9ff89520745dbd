"""From a data set's files, as their owners distribute them, to what training and evaluation read.

    python tools/prepare_data.py dataset=h36m root=FOLDER out=FOLDER
    python tools/prepare_data.py dataset=h36m_videopose3d keypoints=cpn_ft_h36m_dbb root=FOLDER out=FOLDER

Checks counts, joint order, units and numbers, and says what is wrong; goes on where it was interrupted. No pickle
is executed. docs/datasets.md tells for each data set where to get it, what its files are and what it needs.
"""

import os
from pathlib import Path
from typing import Any

from command_line import run_command
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from core.datasets.preparation import prepare
from core.settings import require_number


def main(config: dict[str, Any]) -> None:
    root, out = Path(str(config.pop("root"))), Path(str(config.pop("out")))
    dataset, workers = str(config.pop("dataset")), config.pop("workers")
    require_number("workers", workers, least=1, whole=True, may_be_null=True)
    console = Console(markup=False)  # file names may have brackets
    columns = (
        TimeElapsedColumn(),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(TextColumn("{task.description}"), *columns, console=console) as progress:
        bar = progress.add_task(f"Preparing {dataset}", total=None)
        report = prepare(
            dataset,
            root,
            out,
            on_progress=lambda done, total: progress.update(bar, completed=done, total=total),
            workers=workers or os.cpu_count() or 1,
            **{option: value for option, value in config.items() if value is not None},
        )
    for note in report.notes:
        console.print(note, highlight=False, soft_wrap=True)
    for warning in report.warnings:
        console.print(Text("warning: ", "yellow").append(warning, "default"), soft_wrap=True)
    table = Table(title=f"{dataset} in {out}", title_justify="left")
    table.add_column("counted")
    table.add_column("number", justify="right")
    for name, count in report.counts.items():
        table.add_row(name, f"{count:,}")
    console.print(table)


if __name__ == "__main__":
    run_command(main, "prepare_data", __doc__ or "")
