"""Pictures of how runs learn: errors and losses over the time they took."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from core.charts import GREY, legend_beside, look, new_figure
from core.schedule import Curriculum, Schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# An entry per validation, as `TrainingTask.history` has them: "step", "seconds", errors, mean losses ("loss_…").
# A value that was not finite is None in a history that was read from a file.
History = Sequence[Mapping[str, float | int | None]]

_NAMES = {
    "mpjpe_mm": "MPJPE",
    "pa_mpjpe_mm": "PA-MPJPE",
    "n_mpjpe_mm": "N-MPJPE",
    "mpve_mm": "MPVE",
    "velocity_mm_per_frame": "velocity error, mm/frame",
    "accel_mm_per_s2": "acceleration error, mm/s²",
}
_TIME = {"seconds": "seconds of training", "step": "steps"}
_SMOOTHNESS = ("velocity_mm_per_frame", "accel_mm_per_s2")  # the first that a history has is drawn


def learning_figure(history: History, schedule: Schedule, curriculum: Curriculum) -> "Figure":
    """One run: errors on validation data, how smooth its motion is, and the losses of training.

    Over seconds, or over steps where the run is measured in them. Dotted lines stand where a phase of a curriculum
    begins, and above them its clips × frames of a step: losses before and after are of other clips.

    Args:
        history: what each validation found; at least one.
        schedule: the run's, which says how long it lasts.
        curriculum: the run's.
    """
    over = "seconds" if schedule.max_seconds is not None else "step"
    keys = list(history[-1])
    panels = {
        "validation error, mm": [key for key in _NAMES if key.endswith("_mm") and key in keys],
        **{f"validation: {_NAMES[key]}": [key] for key in _smoothness_of(keys)},
        "training loss, before weights": [key for key in keys if key.startswith("loss_")],
    }
    panels = {title: drawn for title, drawn in panels.items() if drawn}
    figure, axes = new_figure(len(panels), label=_TIME[over])
    for axis, (title, drawn) in zip(axes, panels.items(), strict=True):
        for number, key in enumerate(drawn):
            name = _NAMES.get(key, key.removeprefix("loss_").replace("_", " "))
            _line(axis, history, over, key, number, name)
        if drawn[0].startswith("loss_") and any(value > 0 for value in _finite(history, drawn)):
            axis.set_yscale("log")
        if len(drawn) > 1:
            legend_beside(axis)
        axis.set_title(title, loc="left", fontsize=10, pad=24)  # above the names of phases
        _mark_phases(axis, schedule, curriculum)
    return figure


def comparison_figure(runs: Mapping[str, Sequence[History]], *, over: str) -> "Figure":
    """Several models: the error of each on validation data and how smooth its motion is, a line per seed.

    Args:
        runs: by the name of a model, the history of each of its seeds.
        over: "seconds" | "step".
    """
    entries = [entry for histories in runs.values() for history in histories for entry in history]
    panels = ["mpjpe_mm", *_smoothness_of([key for entry in entries for key in entry])]
    figure, axes = new_figure(len(panels), label=_TIME[over])
    for axis, key in zip(axes, panels, strict=True):
        for number, (name, histories) in enumerate(runs.items()):
            for seed, history in enumerate(histories):
                _line(axis, history, over, key, number, name if seed == 0 else None)
        known = _finite(entries, [key])
        if any(known):  # the first minutes, when nothing is learned yet, need not be seen to their top
            axis.set_ylim(0.95 * min(known), min(1.02 * max(known), 2.2 * min(known)))
        unit = ", mm" if key.endswith("_mm") else ""
        axis.set_title(f"validation: {_NAMES[key]}{unit}", loc="left", fontsize=10)
        axis.set_xlim(left=0)
    legend_beside(axes[-1])
    return figure


def _finite(history: History, keys: Sequence[str]) -> list[float]:
    values = [entry.get(key) for entry in history for key in keys]
    return [value for value in values if value is not None and np.isfinite(value)]


def _smoothness_of(keys: Sequence[str]) -> list[str]:
    return [key for key in _SMOOTHNESS if key in keys][:1]


def _line(axis: "Axes", history: History, over: str, key: str, number: int, name: str | None) -> None:
    x, y = (
        [np.nan if (value := entry.get(wanted)) is None else float(value) for entry in history]
        for wanted in (over, key)
    )
    axis.plot(
        x,
        y,
        **look(number),
        linewidth=1.4,
        marker="o",
        markersize=2.5,
        label=name,
    )


def _mark_phases(axis: "Axes", schedule: Schedule, curriculum: Curriculum) -> None:
    """Where they begin, if the run ends by one clock alone; else nobody knows beforehand."""
    ends = [end for end in (schedule.max_seconds, schedule.max_steps) if end is not None]
    if len(ends) > 1:
        return
    # The last step ends a little after the clock; its point is shown as a whole.
    axis.set_xlim(0, 1.01 * max(ends[0], axis.dataLim.x1))
    if len(curriculum.phases) == 1:
        return
    begins = [0.0, *(phase.until for phase in curriculum.phases[:-1])]
    for phase, share in zip(curriculum.phases, begins, strict=True):
        if share:
            axis.axvline(share * ends[0], color=GREY, linewidth=0.8, linestyle=":")
        blocks = "" if phase.active_blocks is None else f"{phase.active_blocks} blocks\n"
        axis.annotate(
            f"{blocks}{phase.batch_size}×{phase.num_frames}",
            (share * ends[0], 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(2, 2),
            textcoords="offset points",
            verticalalignment="bottom",
            fontsize=7,
            color=GREY,
        )
