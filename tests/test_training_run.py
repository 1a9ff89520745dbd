"""What a training run leaves in its folder: to go on from, to be set aside, or nothing."""

import errno
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_fixtures import composed, kill_tool_after_checkpoint, run_tool, written_by_another_process
from training_fixtures import SMALL, small_config

from core.motion.procedural import procedural_motion
from core.motion.sequence import write_motion_npz
from core.progress import ProgressDisplay
from core.run_folder import set_aside_previous_run
from core.training_run import run_training
from core.weights import read_weights
from mesh_head.training import MeshRecoveryTask


@pytest.mark.slow
def test_resumes_after_being_killed(tmp_path: Path) -> None:
    arguments = [*SMALL, "schedule.max_steps=400", f"out={tmp_path}"]
    reached = kill_tool_after_checkpoint("train_mesh.py", *arguments, out=tmp_path)
    assert reached >= 3
    assert not (tmp_path / "metrics.json").exists()

    finished = run_tool("train_mesh.py", *arguments, "resume=true", f"schedule.max_steps={reached + 3}")
    assert finished.returncode == 0, finished.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["steps"] == reached + 3
    assert [entry["step"] for entry in metrics["history"]][-1] == reached + 3
    assert metrics["history"][0]["step"] == 3


@pytest.mark.slow
def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no checkpoint .*last\.ckpt"):
        run_training(MeshRecoveryTask, small_config(f"out={tmp_path}", "resume=true"), ProgressDisplay())


def test_a_run_too_short_for_all_of_its_blocks_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps, said in ((1, 1), (4, 0)):
        config = small_config(f"out={tmp_path}", f"schedule.max_steps={steps}")
        run_training(MeshRecoveryTask, config, ProgressDisplay())
        output = " ".join(capsys.readouterr().out.split())
        assert output.count("still ran 0 of 3 blocks: the others are saved as random as they began") == said


def test_a_folder_is_one_runs(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("schedule:\ncurriculum:\n")  # of the run that is there
    refusal = pytest.raises(ValueError, match="Another process that is running now")
    with written_by_another_process(tmp_path), refusal:
        run_training(MeshRecoveryTask, small_config(f"out={tmp_path}"), ProgressDisplay())
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["config.yaml"]


def test_a_run_goes_on_as_it_was_configured_or_not_at_all(tmp_path: Path) -> None:
    run_training(MeshRecoveryTask, small_config(f"out={tmp_path}"), ProgressDisplay())
    kept = (tmp_path / "config.yaml").read_text()
    for override, problem in (
        ("seed=1", "with seed=0, not 1"),
        ("backbone.dim=24", "backbone.dim=32, not 24"),
    ):
        with pytest.raises(ValueError, match=problem):
            run_training(
                MeshRecoveryTask, small_config(f"out={tmp_path}", "resume=true", override), ProgressDisplay()
            )
        assert (tmp_path / "config.yaml").read_text() == kept
    longer = small_config(f"out={tmp_path}", "resume=true", "schedule.max_steps=7")
    assert run_training(MeshRecoveryTask, longer, ProgressDisplay()).metrics["steps"] == 7
    # It ended within a validation interval; what goes on from there takes no more time than it takes.
    longer = small_config(f"out={tmp_path}", "resume=true", "schedule.max_steps=9")
    metrics = run_training(MeshRecoveryTask, longer, ProgressDisplay()).metrics
    assert metrics["steps"] == 9
    assert metrics["seconds"] < 100
    kept = (tmp_path / "config.yaml").read_text()
    with pytest.raises(ValueError, match=r"would be \d+%: in an earlier phase of its curriculum"):
        run_training(
            MeshRecoveryTask,
            small_config(f"out={tmp_path}", "resume=true", "schedule.max_steps=100"),
            ProgressDisplay(),
        )
    assert (tmp_path / "config.yaml").read_text() == kept


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path: Path) -> None:
    by_time = ["schedule.max_seconds=0.5", "schedule.max_steps=null", f"out={tmp_path}"]
    first = run_training(MeshRecoveryTask, small_config(*by_time), ProgressDisplay()).metrics
    weights = read_weights(tmp_path / "model.safetensors")[0]
    again = run_training(MeshRecoveryTask, small_config(*by_time, "resume=true"), ProgressDisplay()).metrics
    assert again["steps"] == first["steps"]
    assert again["val"] == first["val"]
    after = read_weights(tmp_path / "model.safetensors")[0]
    assert all(torch.equal(weights[name], after[name]) for name in weights)


def test_a_run_that_diverges_leaves_no_weights(tmp_path: Path) -> None:
    class Diverging(MeshRecoveryTask):
        def losses_of_step(self, phase: Any) -> Any:
            total, terms = super().losses_of_step(phase)
            return total * torch.nan, terms

        def validation_errors(self) -> dict[str, float | int]:
            return {}

    with pytest.raises(ValueError, match=r"The run diverged: after 3 steps its weights .*_learning_rate\.$"):
        run_training(Diverging, small_config(f"out={tmp_path}"), ProgressDisplay())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_whose_answers_are_no_numbers_leaves_no_weights_either(tmp_path: Path) -> None:
    class Diverging(MeshRecoveryTask):
        def validation_errors(self) -> dict[str, float | int]:
            return {"mpjpe_mm": 100.0 if self.global_step == 2 else math.nan}

    config = small_config(f"out={tmp_path}", "schedule.max_steps=8", "schedule.validation_interval=2")
    with pytest.raises(ValueError, match=r"diverged: after 4 steps its .* Its checkpoint of step 2 stays"):
        run_training(Diverging, config, ProgressDisplay())
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_goes_on_with_its_data_elsewhere(tmp_path: Path) -> None:
    """Where each job of a cluster has a copy of its own."""
    for place in ("here", "there"):
        for split, seed in (("train", 0), ("val", 1)):
            (motion,) = procedural_motion(num_sequences=1, num_frames=60, fps=30.0, seed=seed)
            write_motion_npz(tmp_path / place / split / "a.npz", motion)
    settings = [override for override in SMALL if not override.startswith("data.")]
    settings += ["data=motion", f"out={tmp_path / 'run'}"]
    for place, more in (("here", []), ("there", ["resume=true", "schedule.max_steps=7"])):
        config = composed("train_mesh", *settings, f"data.root={tmp_path / place}", *more)
        metrics = run_training(MeshRecoveryTask, config, ProgressDisplay()).metrics
        shutil.rmtree(tmp_path / place)
    assert metrics["steps"] == 7


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    class Diverging(MeshRecoveryTask):
        def losses_of_step(self, phase: Any) -> Any:
            total, terms = super().losses_of_step(phase)
            return total * (torch.nan if self.global_step == 4 else 1.0), terms

        def validation_errors(self) -> dict[str, float | int]:
            return {}

    config = small_config(f"out={tmp_path}", "schedule.max_steps=8", "schedule.validation_interval=2")
    sentence = (
        r"diverged: after 6 steps .* Its checkpoint of step 4 stays; resume=true goes on from there, but at"
    )
    with pytest.raises(ValueError, match=sentence):
        run_training(Diverging, config, ProgressDisplay())
    checkpoint = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 4
    assert all(value.isfinite().all() for value in checkpoint["state_dict"].values())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_checkpoint_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where TMPDIR is on another file system: what is written there would be copied over the one before."""
    checkpoint, linked = tmp_path / "checkpoints" / "last.ckpt", tmp_path / "linked.ckpt"
    save, num_saves = torch.save, 0

    def rename(*paths: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def save_or_die(state: Any, file: Any) -> None:
        nonlocal num_saves
        num_saves += 1
        if num_saves == 2:  # of whoever writes into the file that is there, this sees it
            linked.hardlink_to(checkpoint)
        if num_saves == 3:
            file.write(b"half")
            raise RuntimeError("power cut")
        save(state, file)

    monkeypatch.setattr(os, "rename", rename)
    monkeypatch.setattr(torch, "save", save_or_die)
    config = small_config(f"out={tmp_path}", "schedule.max_steps=3", "schedule.validation_interval=1")
    with pytest.raises(RuntimeError, match="power cut"):
        run_training(MeshRecoveryTask, config, ProgressDisplay())
    for path, step in ((linked, 1), (checkpoint, 2)):
        assert torch.load(path, weights_only=True)["global_step"] == step
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_all_code_that_trained_a_run_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, steps in (("one", 6), ("one", 7), ("two", 8)):
        monkeypatch.setattr("core.training_run.describe_code", lambda code=code: f"{code}\n")
        resume = [] if steps == 6 else ["resume=true"]
        config = small_config(f"out={tmp_path}", f"schedule.max_steps={steps}", *resume)
        run_training(MeshRecoveryTask, config, ProgressDisplay())
    assert (tmp_path / "commit.txt").read_text().split("\n") == ["one", "", "gone on with:", "two", ""]


def test_damaged_runs_are_not_resumed(tmp_path: Path) -> None:
    run_training(MeshRecoveryTask, small_config(f"out={tmp_path}"), ProgressDisplay())
    resumed = small_config(f"out={tmp_path}", "resume=true")
    kept = (tmp_path / "config.yaml").read_text()
    for damage in ("[1, 2]", "a: [", ""):
        (tmp_path / "config.yaml").write_text(damage)
        with pytest.raises(ValueError, match=r"config\.yaml is (damaged|no configuration)"):
            run_training(MeshRecoveryTask, resumed, ProgressDisplay())
    (tmp_path / "config.yaml").write_text(kept)
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"last\.ckpt is damaged and cannot be resumed from"):
        run_training(MeshRecoveryTask, resumed, ProgressDisplay())


def test_a_new_run_sets_aside_what_an_earlier_one_left(tmp_path: Path) -> None:
    for seed in (0, 1):
        run_training(MeshRecoveryTask, small_config(f"out={tmp_path}", f"seed={seed}"), ProgressDisplay())
    first, second = (
        read_weights(folder / "model.safetensors")[0] for folder in (tmp_path / "previous", tmp_path)
    )
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert "seed: 0" in (tmp_path / "previous" / "config.yaml").read_text()
    assert (tmp_path / "previous" / "checkpoints" / "last.ckpt").is_file()


def test_runs_that_did_not_finish_displace_none_that_did(tmp_path: Path) -> None:
    run = "schedule: {}\ncurriculum: []\nrun: "
    (tmp_path / "config.yaml").write_text(run + "a")
    (tmp_path / "model.safetensors").write_text("a")
    set_aside_previous_run(tmp_path)
    for name in ("b", "c"):
        (tmp_path / "config.yaml").write_text(run + name)
        set_aside_previous_run(tmp_path)
        assert (tmp_path / "previous" / "model.safetensors").read_text() == "a"
        assert (tmp_path / "unfinished" / "config.yaml").read_text() == run + name
    (tmp_path / "config.yaml").write_text(run + "d")
    (tmp_path / "model.safetensors").write_text("d")
    set_aside_previous_run(tmp_path)
    assert (tmp_path / "previous" / "model.safetensors").read_text() == "d"


@pytest.mark.parametrize("place", [".", "previous"])
def test_what_others_left_is_not_touched(tmp_path: Path, place: str) -> None:
    run = "schedule: {}\ncurriculum: []\n"
    (tmp_path / "previous").mkdir()
    for folder in (tmp_path, tmp_path / "previous"):
        (folder / "config.yaml").write_text(run)
        (folder / "model.safetensors").write_text("ours")
    (tmp_path / place / "config.yaml").write_text("model: another's\n")
    (tmp_path / place / "notes.txt").write_text("a year of work")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match=r"holds what is no run of this project .*; give another folder"):
        set_aside_previous_run(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
