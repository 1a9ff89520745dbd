"""The comparison as a table: a line per row and clip length, mean ± standard deviation over the seeds."""

from math import isfinite
from statistics import mean, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

_ERRORS = {
    "mpjpe_mm": "P1 mm",
    "pa_mpjpe_mm": "P2 mm",
    "n_mpjpe_mm": "N-MPJPE mm",
    "velocity_mm_per_frame": "velocity mm/frame",
}
_COSTS = ("M parameters", "GMACs/clip", "peak MB", "clips × frames", "forward ms", "fwd + bwd ms")


def print_report(report: dict[str, Any]) -> None:
    """To the terminal; a pipe gets 200 columns."""
    console = Console(width=None if Console().is_terminal else 200, markup=False)
    for table in (errors_table(report), costs_table(report)):
        if table.row_count:
            console.print(table)
    conditions = report["conditions"]
    schedule = conditions["schedule"]
    budget = [f"{schedule['max_steps']} steps"] if schedule["max_steps"] is not None else []
    if schedule["max_seconds"] is not None:
        budget.append(f"{schedule['max_seconds']} s of {conditions['clock']} time")
    runs = [run for row in report["rows"].values() for run in row["runs"]]
    trained_by = sorted({run.get("code", "code not recorded") for run in runs})
    console.print(
        f"Split {conditions['split']}, seeds {conditions['seeds']}, mean ± standard deviation; at most "
        f"{' or '.join(budget)} a run; {conditions['threads']} threads, {conditions['device']}; trained by "
        f"{'; '.join(trained_by)}.",
        style="dim",
        soft_wrap=True,
    )
    if costs_table(report).row_count:
        console.print(_about_costs(conditions), style="dim", soft_wrap=True)
    for sentence in report["left_out"]:
        console.print(sentence, soft_wrap=True)


def _about_costs(conditions: dict[str, Any]) -> str:
    return (
        f"Multiply-adds: {conditions['multiply_adds']}. Peak: {conditions['peak_memory']}. Times: medians, "
        f"{conditions['costs_are_in']}, in turns with {conditions['costs_relative_to']} in one process; in "
        f"brackets, over what {conditions['costs_relative_to']} takes on clips of the same size."
    )


def errors_table(report: dict[str, Any]) -> Table:
    """Errors on the held-out split, and how far each row came."""
    table = _table("row", "evaluated at", *_ERRORS.values(), "steps", "seconds")
    for name, row in _rows_with_baseline(report).items():
        for length in row[0]["errors"]:
            cells = [_spread([run["errors"][length].get(key) for run in row]) for key in _ERRORS]
            steps, seconds = ([run[key] for run in row] for key in ("steps", "seconds"))
            reached = ["", ""] if name == "constant pose" else [f"{mean(steps):.0f}", f"{mean(seconds):.0f}"]
            table.add_row(name, f"T = {length}", *cells, *reached)
    return table


def costs_table(report: dict[str, Any]) -> Table:
    """What each row costs; empty where costs were not measured."""
    table = _table("row", *_COSTS)
    for name, row in report["rows"].items():
        costs = row["costs"]
        if costs is not None:
            times = [
                f"{costs[f'{run}_s'] * 1e3:.1f}" + ("" if ratio is None else f" ({ratio:.2f})")
                for run in ("forward", "forward_backward")
                for ratio in (costs[f"{run}_ratio"],)
            ]
            table.add_row(
                name,
                f"{costs['num_parameters'] / 1e6:.2f}",
                f"{costs['multiply_adds'] / 1e9:.3f}",
                f"{costs['peak_memory_bytes'] / 1e6:.0f}",
                f"{costs['batch_size']} × {costs['num_frames']}",
                *times,
            )
    return table


def _rows_with_baseline(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Every row's runs with its model's errors; first, what a model blind to its input could do."""
    rows = {
        name: [run | {"errors": run["errors"]["model"]} for run in row["runs"]]
        for name, row in report["rows"].items()
    }
    blind = [
        run | {"errors": run["errors"]["constant_pose"]}
        for run in next(iter(report["rows"].values()))["runs"]
    ]
    return {"constant pose": blind, **rows}


def _spread(values: list[float | None]) -> str:
    """A dash where a run has no such error: it diverged (null in its file), or its clips have no velocity."""
    known = [value for value in values if value is not None and isfinite(value)]
    if len(known) < len(values):
        return "–"
    return f"{mean(known):.1f}" + (f" ± {stdev(known):.1f}" if len(known) > 1 else "")


def _table(*titles: str) -> Table:
    table = Table(*titles)
    for column in table.columns[1:]:
        column.justify = "right"
    return table
