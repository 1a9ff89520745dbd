"""A training run that is interrupted, and goes on: it is the run that was not."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training_fixtures import small_config

from core.progress import ProgressDisplay
from core.training_run import fit, run_training
from core.weights import read_weights
from mesh_head.training import MeshRecoveryTask

# Phases that train other parts, averages and dropout: whatever a run is made of, it goes on with.
_RUN = [
    *("schedule.max_steps=7", "schedule.weight_average_decay=0.9"),
    *("backbone.dropout=0.1", "backbone.drop_path=0.1"),
]


@pytest.fixture(autouse=True)
def signals_as_from_a_terminal() -> Iterator[None]:
    """Shells start what runs in the background deaf to Ctrl-C, tests too."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class _Signalled(MeshRecoveryTask):
    """Gets signals in a step, in a validation, or after one."""

    at: tuple[str, int]
    signals: tuple[int, ...] = (signal.SIGINT,)

    def _reach(self, place: str) -> None:
        if self.at == (place, self.global_step):
            for number in self.signals:
                signal.raise_signal(number)

    def losses_of_step(self, phase: Any) -> Any:
        self._reach("step")
        return super().losses_of_step(phase)

    def validation_errors(self) -> dict[str, float | int]:
        errors = super().validation_errors()
        self._reach("validation")
        return errors

    def on_validation_epoch_end(self) -> None:
        self._reach("after validation")


def _config(out: Path, *more: str) -> dict[str, Any]:
    return small_config(f"out={out}", *_RUN, *more)


def _interrupted(out: Path, at: tuple[str, int], *more: str, **attributes: Any) -> str:
    """What is said of a run that gets signals there."""
    task: Any = type("_Task", (_Signalled,), {"at": at, **attributes})
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt) as said:
        run_training(task, _config(out, *more), ProgressDisplay())
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    return str(said.value)


def _saved(out: Path) -> Any:
    return torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that was not interrupted, its folder."""
    out = tmp_path_factory.mktemp("unbroken")
    run_training(MeshRecoveryTask, _config(out), ProgressDisplay())
    return out


def _assert_same_run(out: Path, unbroken: Path) -> None:
    weights, expected = (read_weights(folder / "model.safetensors")[0] for folder in (out, unbroken))
    assert all(torch.equal(value, weights[name]) for name, value in expected.items())
    state, whole = _saved(out), _saved(unbroken)
    assert state["global_step"] == whole["global_step"]
    assert all(torch.equal(value, state["state_dict"][name]) for name, value in whole["state_dict"].items())
    histories = []
    for folder_state in (state, whole):
        history = folder_state["run_state"]["history"]
        assert sorted(entry["seconds"] for entry in history) == [entry["seconds"] for entry in history]
        histories.append([{key: entry[key] for key in entry if key != "seconds"} for entry in history])
    assert histories[0] == histories[1]
    assert [entry["step"] for entry in histories[0]] == [3, 6, 7]


@pytest.mark.parametrize(
    ("at", "num_saved"),
    [
        (("step", 2), 3),  # in the last step before a validation
        (("validation", 3), 3),
        (("after validation", 3), 3),
        (("step", 4), 5),
        (("validation", 7), 7),
        (("after validation", 7), 7),
    ],
)
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, unbroken: Path, at: tuple[str, int], num_saved: int
) -> None:
    assert _interrupted(tmp_path, at) == (
        f"Interrupted after {num_saved} steps, which are saved; to go on, give the same command with resume=true."
    )
    state = _saved(tmp_path)
    assert state["global_step"] == num_saved
    finished = run_training(MeshRecoveryTask, _config(tmp_path, "resume=true"), ProgressDisplay())
    assert finished.metrics["seconds"] >= state["run_state"]["seconds"]
    _assert_same_run(tmp_path, unbroken)


def test_a_run_that_is_interrupted_again_and_again_is_the_same(tmp_path: Path, unbroken: Path) -> None:
    _interrupted(tmp_path, ("step", 1), signals=(signal.SIGTERM,))
    for at in (("step", 2), ("validation", 3), ("step", 3), ("step", 6)):
        _interrupted(tmp_path, at, "resume=true")
    run_training(MeshRecoveryTask, _config(tmp_path, "resume=true"), ProgressDisplay())
    _assert_same_run(tmp_path, unbroken)


def test_validations_are_where_the_interval_says_whatever_it_was(tmp_path: Path) -> None:
    _interrupted(tmp_path, ("step", 3))
    resumed = _config(tmp_path, "resume=true", "schedule.validation_interval=2")
    history = run_training(MeshRecoveryTask, resumed, ProgressDisplay()).metrics["history"]
    assert [entry["step"] for entry in history] == [3, 4, 6, 7]


def test_a_validation_is_broken_off(tmp_path: Path) -> None:
    """Not at its end."""

    class Lasting(_Signalled):
        at = ("validation", 3)

        def validation_errors(self) -> dict[str, float | int]:
            super().validation_errors()
            raise AssertionError("it went on")

    with pytest.raises(KeyboardInterrupt, match="after 3 steps, which are saved"):
        run_training(Lasting, _config(tmp_path), ProgressDisplay())


def test_interrupted_twice_it_ends_at_once(tmp_path: Path) -> None:
    twice = {"signals": (signal.SIGINT, signal.SIGTERM)}
    sentence = "Interrupted after 1 steps, of which none are saved."
    assert _interrupted(tmp_path, ("step", 1), **twice) == sentence
    assert not (tmp_path / "checkpoints").exists()
    sentence = (
        "Interrupted after 5 steps, of which 3 are saved; to go on, give the same command with resume=true."
    )
    assert _interrupted(tmp_path, ("step", 5), **twice) == sentence
    assert _saved(tmp_path)["global_step"] == 3


def test_interrupted_while_it_saves_it_has_what_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save: Callable[..., None] = torch.save

    def save_slowly(state: Any, file: Any) -> None:
        if state["global_step"] == 5:
            signal.raise_signal(signal.SIGINT)
        save(state, file)

    monkeypatch.setattr(torch, "save", save_slowly)
    assert "after 5 steps, of which 3 are saved; to go on" in _interrupted(tmp_path, ("step", 4))
    assert _saved(tmp_path)["global_step"] == 3
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    def losses_of_step(self: Any, phase: Any) -> Any:
        total, terms = _Signalled.losses_of_step(self, phase)
        return total * (torch.nan if self.global_step == 4 else 1.0), terms

    said = _interrupted(tmp_path, ("step", 4), losses_of_step=losses_of_step)
    assert "Interrupted after 5 steps, of which 3 are saved; to go on" in said
    state = _saved(tmp_path)
    assert state["global_step"] == 3
    assert all(value.isfinite().all() for value in state["state_dict"].values())


def test_who_runs_it_says_how_it_goes_on(tmp_path: Path) -> None:
    task = _Signalled(_config(tmp_path))
    task.at = ("step", 1)
    with pytest.raises(KeyboardInterrupt, match=r"after 2 steps, which are saved; ask again\.$"):
        fit(task, ProgressDisplay(), go_on_by="ask again")


def test_deaf_to_ctrl_c_it_stays_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As shells start what runs in the background: the Ctrl-C is for another command."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    monkeypatch.setattr(_Signalled, "at", ("step", 1), raising=False)
    try:
        finished = run_training(_Signalled, _config(tmp_path), ProgressDisplay())
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert finished.metrics["steps"] == 7
