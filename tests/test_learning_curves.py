"""What the pictures of learning show: every value at its place, and where a run's clips change."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.charts import save_figure
from core.learning_curves import comparison_figure, learning_figure
from core.schedule import Curriculum, CurriculumPhase, Schedule

HISTORY = [
    {"step": 20, "seconds": 5.0, "mpjpe_mm": 120.0, "pa_mpjpe_mm": 90.0, "velocity_mm_per_frame": 9.0}
    | {"loss_position": 0.3, "loss_velocity": 0.02, "num_frames": 50},
    {"step": 40, "seconds": 11.0, "mpjpe_mm": 80.0, "pa_mpjpe_mm": 60.0, "velocity_mm_per_frame": 7.0}
    | {"loss_position": 0.1, "loss_velocity": 0.01, "num_frames": 50},
]


def _schedule(max_steps: int | None, max_seconds: float | None) -> Schedule:
    return Schedule(
        max_steps=max_steps,
        max_seconds=max_seconds,
        validation_interval=20,
        learning_rate=1e-3,
        muon_learning_rate=None,
        backbone_learning_rate_scale=1.0,
        trunk_learning_rate_scale=1.0,
        warmup_steps=0,
        decay="cosine",
        final_learning_rate_fraction=0.1,
        adam_beta2=0.99,
        weight_decay=0.0,
        max_gradient_norm=None,
        weight_average_decay=None,
    )


def _phase(until: float, num_frames: int, active_blocks: int | None = None) -> CurriculumPhase:
    return CurriculumPhase(until=until, num_frames=num_frames, batch_size=4, active_blocks=active_blocks)


CURRICULUM = Curriculum((_phase(0.25, 5, active_blocks=2), _phase(1.0, 27)))


def _curves(axis: object) -> dict[str, list[list[float]]]:
    """The lines that have points, by name, as [x, y]."""
    lines = [line for line in axis.get_lines() if line.get_marker() == "o"]  # type: ignore[attr-defined]
    return {line.get_label(): [list(line.get_xdata()), list(line.get_ydata())] for line in lines}


@pytest.mark.parametrize(
    ("max_steps", "max_seconds", "x", "joint_at"),
    [(None, 12.0, [5.0, 11.0], 3.0), (40, None, [20, 40], 10.0), (40, 12.0, [5.0, 11.0], None)],
)
def test_a_run(
    max_steps: int | None, max_seconds: float | None, x: list[float], joint_at: float | None
) -> None:
    errors, smoothness, losses = learning_figure(HISTORY, _schedule(max_steps, max_seconds), CURRICULUM).axes
    assert _curves(errors) == {"MPJPE": [x, [120.0, 80.0]], "PA-MPJPE": [x, [90.0, 60.0]]}
    assert [y for _, y in _curves(smoothness).values()] == [[9.0, 7.0]]
    assert "mm/frame" in smoothness.get_title(loc="left")
    assert _curves(losses) == {"position": [x, [0.3, 0.1]], "velocity": [x, [0.02, 0.01]]}
    assert [axis.get_yscale() for axis in (errors, smoothness, losses)] == ["linear", "linear", "log"]
    for axis in (errors, smoothness, losses):
        phases = [float(line.get_xdata()[0]) for line in axis.get_lines() if line.get_marker() != "o"]
        assert phases == ([] if joint_at is None else [joint_at])
        names = [text.get_text() for text in axis.texts]
        assert names == ([] if joint_at is None else ["2 blocks\n4×5", "4×27"])


def test_the_same_clips_throughout_need_no_marks() -> None:
    figure = learning_figure(HISTORY, _schedule(40, None), Curriculum((_phase(1.0, 27),)))
    assert all(not axis.texts for axis in figure.axes)
    assert figure.axes[0].get_xlim() == pytest.approx((0, 40.4))
    late = [*HISTORY[:-1], HISTORY[-1] | {"step": 60}]  # later than it was meant to end
    figure = learning_figure(late, _schedule(40, None), Curriculum((_phase(1.0, 27),)))
    assert figure.axes[0].get_xlim() == pytest.approx((0, 60.6))


def test_a_comparison() -> None:
    later = [entry | {"mpjpe_mm": entry["mpjpe_mm"] + 1} for entry in HISTORY]
    figure = comparison_figure({"ours": [HISTORY, later], "mlp": [HISTORY]}, over="step")
    errors, smoothness = figure.axes
    lines = errors.get_lines()
    assert [list(line.get_ydata()) for line in lines] == [[120.0, 80.0], [121.0, 81.0], [120.0, 80.0]]
    assert lines[0].get_color() == lines[1].get_color() != lines[2].get_color()
    assert [text.get_text() for text in smoothness.get_legend().get_texts()] == ["ours", "mlp"]
    assert errors.get_xlim()[0] == 0


def test_no_two_of_many_models_look_alike() -> None:
    figure = comparison_figure({f"row {number}": [HISTORY] for number in range(17)}, over="step")
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()}
    assert len(looks) == 17


def test_runs_that_diverged_are_drawn_as_far_as_they_went(tmp_path: Path) -> None:
    diverged = [HISTORY[0], HISTORY[1] | {"mpjpe_mm": None, "loss_position": float("nan")}]
    for figure in (
        learning_figure(diverged, _schedule(40, None), CURRICULUM),
        comparison_figure({"ours": [diverged], "mlp": [HISTORY]}, over="seconds"),
    ):
        values = figure.axes[0].get_lines()[0].get_ydata()
        assert values[0] == 120.0
        assert np.isnan(values[1])
        save_figure(figure, tmp_path / "learning.png")
        with Image.open(tmp_path / "learning.png") as picture:
            assert min(picture.size) > 400
    save_figure(comparison_figure({"ours": [[]]}, over="step"), tmp_path / "nothing.png")  # no validation yet
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for value in (None, float("inf"), 0.0):
            nowhere = [
                entry | {key: value for key in entry if key not in ("step", "seconds")} for entry in HISTORY
            ]
            save_figure(learning_figure(nowhere, _schedule(40, None), CURRICULUM), tmp_path / "nothing.png")
            save_figure(comparison_figure({"ours": [nowhere]}, over="step"), tmp_path / "nothing.png")
    assert (tmp_path / "nothing.png").is_file()
