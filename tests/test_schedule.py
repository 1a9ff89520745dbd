import itertools
import re
from typing import Any

import pytest

from core.schedule import Curriculum, CurriculumPhase, Schedule
from core.settings import require_number
from core.ssr_stf.lifting import LiftingLoss


def _schedule(**changes: object) -> Schedule:
    settings = {
        "max_steps": 100,
        "max_seconds": None,
        "validation_interval": 10,
        "learning_rate": 1.0,
        "muon_learning_rate": None,
        "backbone_learning_rate_scale": 1.0,
        "trunk_learning_rate_scale": 1.0,
        "warmup_steps": 10,
        "decay": "cosine",
        "final_learning_rate_fraction": 0.1,
        "adam_beta2": 0.99,
        "weight_decay": 0.0,
        "max_gradient_norm": 1.0,
        "weight_average_decay": None,
    }
    return Schedule(**(settings | changes))


def _phase(until: float, active_blocks: int | None = None) -> CurriculumPhase:
    return CurriculumPhase(until=until, num_frames=9, batch_size=2, active_blocks=active_blocks)


def test_progress_is_of_whatever_ends_first() -> None:
    assert _schedule().progress(50, 1e9) == 0.5
    assert _schedule(max_seconds=10.0).progress(50, 9.0) == 0.9
    assert _schedule(max_steps=None, max_seconds=10.0).progress(10**6, 20.0) == 1.0
    with pytest.raises(ValueError, match="needs an end"):
        _schedule(max_steps=None)


def test_learning_rate_rises_then_falls_to_its_floor() -> None:
    schedule = _schedule()
    rates = [schedule.learning_rate_at(step, schedule.progress(step, 0.0)) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == pytest.approx(1.0, rel=0.05)
    assert rates.index(max(rates)) == 9
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0.1)


def test_who_joins_late_begins_at_the_peak() -> None:
    schedule = _schedule(warmup_steps=0)
    assert schedule.learning_rate_at(80, 0.8, joined_at=0.8) == pytest.approx(1.0)
    assert schedule.learning_rate_at(90, 0.9, joined_at=0.8) == pytest.approx(
        schedule.learning_rate_at(50, 0.5)
    )
    assert schedule.learning_rate_at(100, 1.0, joined_at=0.8) == pytest.approx(0.1)
    assert schedule.learning_rate_at(0, 0.0, joined_at=0.8) == pytest.approx(1.0)


def test_trunk_joins_with_the_first_phase_that_runs_blocks() -> None:
    assert Curriculum((_phase(1.0),)).trunk_joins_at == 0.0
    assert Curriculum((_phase(0.3, 0), _phase(1.0))).trunk_joins_at == 0.3
    assert Curriculum((_phase(0.3, 0), _phase(0.6, 0), _phase(0.8, 1), _phase(1.0))).trunk_joins_at == 0.6
    assert Curriculum((_phase(0.3), _phase(0.6, 0), _phase(1.0))).trunk_joins_at == 0.0


def test_curriculum_phases_follow_progress() -> None:
    curriculum = Curriculum((_phase(0.3, 0), _phase(1.0)))
    assert curriculum.at(0.0).active_blocks == 0
    assert curriculum.at(0.3).active_blocks is None
    assert curriculum.at(1.0).active_blocks is None
    assert curriculum.max_frames == 9


def test_a_phase_changes_weights_of_the_loss() -> None:
    loss = LiftingLoss(position=1.0, scale_aligned=0.5, velocity=2.0)
    settings = {"until": 1.0, "num_frames": 9, "batch_size": 2, "active_blocks": None}
    assert CurriculumPhase(**settings).loss_from(loss) == loss
    changed = CurriculumPhase(**settings, loss_scale={"velocity": 3.0}).loss_from(loss)
    assert changed == LiftingLoss(position=1.0, scale_aligned=0.5, velocity=6.0)
    with pytest.raises(ValueError, match="weight of speed, which the loss does not have; it has position"):
        CurriculumPhase(**settings, loss_scale={"speed": 6.0}).loss_from(loss)


@pytest.mark.parametrize("ends", [[], [0.5], [0.5, 0.5, 1.0], [0.8, 0.4, 1.0]])
def test_curriculum_must_end_at_one(ends: list[float]) -> None:
    with pytest.raises(ValueError, match=r"up to 1\.0"):
        Curriculum(tuple(_phase(end) for end in ends))


def test_exponential_decay_is_a_constant_factor_per_epoch() -> None:
    schedule = _schedule(decay="exponential", final_learning_rate_fraction=0.99**60, warmup_steps=0)
    rates = [schedule.learning_rate_at(0, epoch / 60) for epoch in range(61)]
    assert all(abs(after / before - 0.99) < 1e-9 for before, after in itertools.pairwise(rates))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1, or null, not 0"),
        ({"max_steps": True}, "not true"),
        ({"max_seconds": 0.0}, "max_seconds must be a number above 0, or null, not 0"),
        ({"validation_interval": 0}, "validation_interval must be a whole number of at least 1, not 0"),
        ({"learning_rate": -1.0}, "learning_rate must be a number above 0"),
        ({"warmup_steps": -5}, "warmup_steps"),
        ({"weight_decay": -0.1}, "weight_decay must be a number of at least 0"),
        ({"max_gradient_norm": 0.0}, "above 0, or null"),
        ({"weight_average_decay": 1.5}, "weight_average_decay .* of at least 0 and below 1"),
        ({"decay": "exponential", "final_learning_rate_fraction": 0.0}, "final_learning_rate_fraction"),
        ({"final_learning_rate_fraction": float("nan")}, "final_learning_rate_fraction"),
    ],
)
def test_impossible_schedules_are_refused(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        _schedule(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        *({"num_frames": 0}, {"batch_size": 0}, {"active_blocks": -1}),
        *({"until": -0.5}, {"loss_scale": {"velocity": -1.0}}),
    ],
)
def test_impossible_phases_are_refused(changes: dict[str, object]) -> None:
    settings = {"until": 1.0, "num_frames": 9, "batch_size": 2, "active_blocks": None}
    with pytest.raises(ValueError, match=next(iter(changes))):
        CurriculumPhase(**(settings | changes))


@pytest.mark.parametrize("phases", [None, 3, [3], [{"until": 1.0}], [{"untill": 1.0}]])
def test_what_is_no_curriculum_is_refused(phases: Any) -> None:
    with pytest.raises(ValueError, match=r"curriculum must be a list of phases|Phase 0 of the curriculum"):
        Curriculum.of(phases)


@pytest.mark.parametrize(
    ("value", "limits", "problem"),
    [
        (None, {}, "a.b must be a number, not null"),
        (2.5, {"whole": True}, "a.b must be a whole number, not 2.5"),
        (True, {"whole": True}, "a.b must be a whole number, not true"),
        ("x", {"least": 0}, "a.b must be a number of at least 0, not x"),
        (float("nan"), {}, "not nan"),
        (1.0, {"least": 0.0, "below": 1.0}, "a.b must be a number of at least 0 and below 1, not 1.0"),
        (1.5, {"most": 1.0, "may_be_null": True}, "a.b must be a number of at most 1, or null, not 1.5"),
        (0, {"above": 0}, "a.b must be a number above 0, not 0"),
    ],
)
def test_numbers_that_are_refused(value: object, limits: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=re.escape(problem)):
        require_number("a.b", value, **limits)


def test_numbers_that_are_not() -> None:
    require_number("a", 0, least=0, whole=True)
    require_number("a", 1e-9, above=0)
    require_number("a", None, may_be_null=True)
    require_number("a", -3.5)
