"""Runs that begin from a whole trained model, backbone and head, and runs that go on."""

import re
from pathlib import Path

import pytest
import torch
from command_fixtures import composed
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from test_pose_commands import SMALL_MESH, SMALL_MOTION, SMALL_RUN

from core.progress import ProgressDisplay
from core.ssr_stf.lifting_training import LiftingTask
from core.training import without_weights
from core.training_run import run_training, save_trained_model
from core.weights import read_weights, save_weights
from mesh_head.training import MeshRecoveryTask

KEYPOINTS = torch.randn(2, 9, 17, 3, generator=torch.Generator().manual_seed(0))


def trained_mesh_model(folder: Path, *overrides: str) -> Path:
    """As if trained: every weight of the head moved."""
    task = MeshRecoveryTask(
        composed("train_mesh", *SMALL_MESH, "backbone.weights=null", f"out={folder}", *overrides)
    )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in task.model.head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    folder.mkdir()
    save_trained_model(task)
    return folder / "model.safetensors"


def begun_from(path: Path, *overrides: str) -> MeshRecoveryTask:
    weights = (f"backbone.weights={path}", f"head.weights={path}")
    return MeshRecoveryTask(composed("train_mesh", *SMALL_MESH, *weights, *overrides))


def test_a_mesh_model_is_trained_on(tmp_path: Path) -> None:
    path = trained_mesh_model(tmp_path / "before")
    # On other motion, whose mean pose is another: the head keeps the one that it is an offset from.
    task = begun_from(path, "data.seed=5", f"out={tmp_path / 'after'}")
    state = read_weights(path)[0]
    assert all(torch.equal(value, state[name]) for name, value in task.model.state_dict().items())
    # The file of the new run says nothing of the old one, which may be gone.
    (tmp_path / "after").mkdir()
    save_trained_model(task)
    _, header = read_weights(tmp_path / "after" / "model.safetensors")
    assert "weights" not in header["head"].keys() | header["backbone"].keys()
    task.training_step(0, 0)


def test_a_lifting_model_is_trained_on(tmp_path: Path) -> None:
    settings = (*SMALL_RUN, *SMALL_MOTION, f"out={tmp_path}")
    before = LiftingTask(composed("train_pose", *settings))
    save_trained_model(before)
    path = tmp_path / "model.safetensors"
    after = LiftingTask(
        composed("train_pose", *settings, "seed=3", f"backbone.weights={path}", f"head.weights={path}")
    )
    torch.testing.assert_close(after.model(KEYPOINTS), before.model(KEYPOINTS), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"unit": "half image width"}, "answers in the unit half image width to crop input"),
        (
            {"normalisation": "screen"},
            "answers in the unit metre to screen input, and these clips are of crop",
        ),
    ],
)
def test_a_lifting_head_of_another_unit_or_input_is_refused(
    changed: dict[str, str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = (*SMALL_RUN, *SMALL_MOTION, f"out={tmp_path}")
    trained = LiftingTask(composed("train_pose", *settings))
    monkeypatch.setattr(trained, "clip_format", lambda: LiftingTask.clip_format(trained) | changed)
    save_trained_model(trained)
    begun = [f"{part}.weights={tmp_path / 'model.safetensors'}" for part in ("backbone", "head")]
    with pytest.raises(ValueError, match=rf"head\.weights=.* {sentence}"):
        LiftingTask(composed("train_pose", *settings, *begun))
    LiftingTask(composed("train_pose", *settings, begun[0]))  # a backbone alone may learn another task


def test_a_backbone_that_has_seen_other_input_is_remarked_upon(tmp_path: Path) -> None:
    lifting = LiftingTask(composed("train_pose", *SMALL_RUN, *SMALL_MOTION, f"out={tmp_path}"))
    path = tmp_path / "backbone.safetensors"
    parts = {"backbone": lifting.backbone_config, "head": lifting.head_config}

    def remark(*overrides: str, **clip: float | str) -> str | None:
        save_weights(path, lifting.model, **parts, clip=lifting.clip_format() | clip)
        settings = (*SMALL_MESH, f"backbone.weights={path}", *overrides)
        return MeshRecoveryTask(composed("train_mesh", *settings)).remark

    assert lifting.remark is None
    assert remark() is None
    assert remark(fps=50.0, normalisation="screen") == (
        "The backbone was trained on keypoints in the whole picture at 50 frames a second, and these are "
        "keypoints in the person's crop at 30 frames a second: it has to learn them anew."
    )
    frozen = remark("schedule.backbone_learning_rate_scale=0.0", fps=50.0)
    assert str(frozen).endswith("learn them anew, and a frozen one does not.")


def test_a_resumed_run_does_not_need_what_it_began_from(tmp_path: Path) -> None:
    """Which may have been in its own folder, and is in `previous` since."""
    settings = (*SMALL_RUN, *SMALL_MOTION, f"out={tmp_path}", "schedule.max_steps=2")
    begun = (
        f"backbone.weights={tmp_path / 'model.safetensors'}",
        f"head.weights={tmp_path / 'model.safetensors'}",
    )
    run_training(LiftingTask, composed("train_pose", *settings), ProgressDisplay())
    run_training(LiftingTask, composed("train_pose", *settings, *begun), ProgressDisplay())
    (tmp_path / "model.safetensors").unlink()  # as if interrupted
    longer = (*settings, *begun, "schedule.max_steps=4", "resume=true")
    assert run_training(LiftingTask, composed("train_pose", *longer), ProgressDisplay()).metrics["steps"] == 4


@pytest.mark.slow
def test_a_resumed_run_is_the_unbroken_one(tmp_path: Path) -> None:
    """To the last bit, with averaged weights and dropout, though the first part ended between validations."""
    # Nothing may depend on how long the run is, as its first part is a shorter one.
    steady = ["schedule.final_learning_rate_fraction=1.0", "schedule.weight_average_decay=0.9"]
    steady += ["curriculum=[{until: 1.0, num_frames: 9, batch_size: 2, active_blocks: null}]"]
    steady += ["backbone.dropout=0.1", "backbone.drop_path=0.1"]

    def trained(out: str, num_steps: int, *more: str) -> dict[str, torch.Tensor]:
        settings = (
            *SMALL_RUN,
            *SMALL_MOTION,
            *steady,
            f"out={tmp_path / out}",
            f"schedule.max_steps={num_steps}",
        )
        run_training(LiftingTask, composed("train_pose", *settings, *more), ProgressDisplay())
        return read_weights(tmp_path / out / "model.safetensors")[0]

    whole = trained("whole", 6, "schedule.validation_interval=2")
    trained("parts", 3, "schedule.validation_interval=2")
    parts = trained("parts", 6, "schedule.validation_interval=5", "resume=true")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_what_a_head_cannot_begin_from_is_refused(tmp_path: Path) -> None:
    path = trained_mesh_model(tmp_path / "run", "head.dim_hidden=48")
    with pytest.raises(ValueError, match=r"pose\.linear\.weight is \(144, 48\) .* say head\.weights=null\."):
        begun_from(path)
    fitting = trained_mesh_model(tmp_path / "fitting")
    with pytest.raises(
        ValueError, match=r"trained with head\.rotation_frame=parent, not crop; set it likewise"
    ):
        begun_from(fitting, "head.rotation_frame=crop")
    older = trained_mesh_model(tmp_path / "older", "~head.rotation_frame")
    assert "rotation_frame" not in read_weights(older)[1]["head"]
    with pytest.raises(ValueError, match=r"trained with head\.rotation_frame=parent, not crop; set it"):
        begun_from(older, "head.rotation_frame=crop")
    begun_from(older)
    with pytest.raises(ValueError, match=r"is of no use without backbone\.weights"):
        MeshRecoveryTask(
            composed("train_mesh", *SMALL_MESH, "backbone.weights=null", f"head.weights={fitting}")
        )
    lifting = LiftingTask(composed("train_pose", *SMALL_RUN, *SMALL_MOTION, f"out={tmp_path}"))
    save_trained_model(lifting)
    with pytest.raises(ValueError, match=r"is a core\.ssr_stf\.lifting\.LiftingHead, and the configured one"):
        MeshRecoveryTask(
            composed(
                "train_mesh",
                *SMALL_MESH,
                f"backbone.weights={fitting}",
                f"head.weights={tmp_path / 'model.safetensors'}",
            )
        )


def test_a_head_of_another_body_model_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = {"num_frames": 9, "fps": 30.0, "body_model": "smpl"}
    monkeypatch.setattr(MeshRecoveryTask, "clip_format", lambda self: clip)
    path = trained_mesh_model(tmp_path / "run")
    with pytest.raises(ValueError, match="was trained with the body model smpl, and its betas mean nothing"):
        begun_from(path)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 9 GiB"),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_running_out_of_memory_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(self: LiftingTask, step: int, phase: object) -> None:
        raise error

    monkeypatch.setattr(LiftingTask, "training_clips", fail)
    config = composed("train_pose", *SMALL_RUN, *SMALL_MOTION, f"out={tmp_path}", "schedule.max_steps=2")
    with pytest.raises(ValueError, match="Memory ran out after 0 steps; give clips in smaller batches"):
        run_training(LiftingTask, config, ProgressDisplay())


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (
            ["loss.position=0.0", "loss.scale_aligned=0.0", "loss.velocity=0.0"],
            "All weights of the loss are 0",
        ),
        (["head.dim_representation=7"], "gives features of .* channels and the head takes 7"),
        (
            ["backbone=residual_mlp", "head.num_tokens=1", "backbone.num_joints=16"],
            "backbone.num_joints must be",
        ),
    ],
)
def test_what_could_not_learn_is_refused(overrides: list[str], problem: str) -> None:
    settings = [override for override in SMALL_RUN if not override.startswith("backbone.")]
    with pytest.raises((ValueError, InstantiationException)) as caught:
        LiftingTask(composed("train_pose", *settings, *SMALL_MOTION, *overrides))
    assert re.search(problem, str(caught.value))


def test_a_whole_number_is_a_layer_scale() -> None:
    backbone = without_weights(composed("train_pose", "backbone.layer_scale_init=1")["backbone"])
    assert instantiate(backbone)(KEYPOINTS).isfinite().all()
