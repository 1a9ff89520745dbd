"""tools/train_pose.py and tools/eval_pose.py as a user runs them, and the hand-over to tools/train_mesh.py."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command_fixtures import (
    ROOT,
    composed,
    interrupt_tool_after_checkpoint,
    kill_tool_after_checkpoint,
    run_tool,
)
from lifting_fixtures import SMALL_MOTION, SMALL_RUN, write_lifting_store
from PIL import Image

from core.progress import ProgressDisplay
from core.schedule import Curriculum, CurriculumPhase
from core.ssr_stf.lifting import load_lifting_model
from core.ssr_stf.lifting_training import LiftingTask
from core.training_run import run_training
from core.weights import read_weights
from mesh_head.training import MeshRecoveryTask

ERRORS = {"mpjpe_mm", "pa_mpjpe_mm", "n_mpjpe_mm", "velocity_mm_per_frame", "accel_mm_per_s2"}
EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("pose_*.yaml"))
SMALL_MESH = [
    *(
        "backbone.dim=16",
        "backbone.frame_context=mirror_mlp",
        "backbone.context_dim=64",
        "data.num_sequences={train:2,val:1}",
        "data.num_frames=40",
    ),
    "schedule.max_seconds=null",
    "schedule.max_steps=2",
    "curriculum=[{until:1.0,num_frames:9,batch_size:2,active_blocks:null}]",
]


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    finished = run_tool("train_pose.py", *SMALL_RUN, *SMALL_MOTION, f"out={out}")
    assert finished.returncode == 0, finished.stderr
    assert "PA-MPJPE" in finished.stdout
    return out


@pytest.mark.slow
def test_training_leaves_what_it_promises(small_run: Path) -> None:
    metrics = json.loads((small_run / "metrics.json").read_text())
    assert metrics["protocol"] == "motion"
    assert metrics["val"].keys() >= ERRORS
    assert metrics["baseline_constant_pose"].keys() >= ERRORS
    assert metrics["val"]["num_frames"] == 120
    assert [entry["step"] for entry in metrics["history"]] == [2, 4]
    with Image.open(small_run / "preview.png") as picture:
        assert min(picture.size) > 400
    with Image.open(small_run / "learning.png") as picture:
        assert min(picture.size) > 400
    assert "schedule" in (small_run / "config.yaml").read_text()
    assert (small_run / "commit.txt").read_text()
    _, header = read_weights(small_run / "model.safetensors")
    assert header["head"]["_target_"] == "core.ssr_stf.lifting.LiftingHead"
    assert header["clip"] == {
        **{"num_frames": 27, "fps": 30.0},
        **{"normalisation": "crop", "unit": "metre"},
    }
    model, _ = load_lifting_model(small_run / "model.safetensors")
    assert model(torch.zeros(1, 40, 17, 3)).shape == (1, 40, 17, 3)


@pytest.mark.slow
def test_evaluation_of_a_run(small_run: Path, tmp_path: Path) -> None:
    weights = f"weights={small_run / 'model.safetensors'}"
    result = tmp_path / "result.json"
    finished = run_tool(
        "eval_pose.py", weights, f"out={result}", *SMALL_MOTION, "windows=tiled", "mirror_test=false"
    )
    assert finished.returncode == 0, finished.stderr
    report = json.loads(result.read_text())
    assert "tiled" in report["definition"]
    assert report["total"]["num_frames"] == 120 == sum(s["num_frames"] for s in report["sequences"].values())
    write_lifting_store(tmp_path / "store")
    refused = run_tool(
        "eval_pose.py", weights, "clips=prepared", "data=prepared_lifting", f"data.root={tmp_path / 'store'}"
    )
    assert refused.returncode == 2
    assert "normalised to the crop" in refused.stderr


@pytest.mark.slow
def test_a_run_goes_on_after_being_killed(tmp_path: Path) -> None:
    arguments = [*SMALL_RUN, *SMALL_MOTION]
    arguments += ["schedule.max_steps=400", "schedule.weight_average_decay=0.99", f"out={tmp_path}"]
    reached = kill_tool_after_checkpoint("train_pose.py", *arguments, out=tmp_path)
    assert not (tmp_path / "metrics.json").exists()
    finished = run_tool("train_pose.py", *arguments, "resume=true", f"schedule.max_steps={reached + 2}")
    assert finished.returncode == 0, finished.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["steps"] == reached + 2
    assert metrics["history"][0]["step"] == 2


@pytest.mark.slow
def test_one_seed_one_run(tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        overrides = [*SMALL_RUN, *SMALL_MOTION, f"out={tmp_path / name}", f"seed={seed}"]
        run_training(LiftingTask, composed("train_pose", *overrides), ProgressDisplay())
        weights.append(read_weights(tmp_path / name / "model.safetensors")[0])
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not torch.equal(weights[0]["head.out.weight"], weights[2]["head.out.weight"])


@pytest.mark.parametrize("dataset", ["h36m", "3dhp"])
def test_prepared_sets_train_evaluate_and_average(tmp_path: Path, dataset: str) -> None:
    write_lifting_store(tmp_path / "store", dataset)
    overrides = [
        *("experiment=pose_h36m_xs", "backbone=ssr_stf_tiny", f"data.root={tmp_path / 'store'}"),
        *(*SMALL_RUN, "schedule.weight_average_decay=0.9", f"out={tmp_path / 'run'}"),
    ]
    metrics = run_training(LiftingTask, composed("train_pose", *overrides), ProgressDisplay()).metrics
    assert metrics["protocol"] == {"h36m": "human36m", "3dhp": "mpi_inf_3dhp"}[dataset]
    assert metrics["actions"].keys() == {"Walking"}
    assert ("pck_percent" in metrics["val"]) == (dataset == "3dhp")
    assert metrics["val"]["num_frames"] == 107
    _, clip = load_lifting_model(tmp_path / "run" / "model.safetensors")
    assert clip["normalisation"] == "screen"


def test_averaged_weights_follow_the_trained_ones() -> None:
    task = LiftingTask(composed("train_pose", *SMALL_RUN, *SMALL_MOTION, "schedule.weight_average_decay=0.9"))
    with torch.no_grad():
        task.model.head.out.weight.add_(1.0)
    start = task.averaged_model.head.out.weight.clone()
    task._average_weights()
    # At step 0 the average is short: a tenth of it remains.
    torch.testing.assert_close(task.averaged_model.head.out.weight, start + 0.9)
    assert task.evaluated_model is task.averaged_model
    assert not any(parameter.requires_grad for parameter in task.averaged_model.parameters())


def test_half_precision_is_the_backbones_alone(tmp_path: Path) -> None:
    """In bf16 a joint would stand on a grid of millimetres."""
    seen: dict[str, torch.dtype] = {}

    class Recorded(LiftingTask):
        def losses_of_step(self, phase: CurriculumPhase) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            backbone, head = self.model.backbone, self.model.head
            linear = next(part for part in backbone.blocks.modules() if isinstance(part, torch.nn.Linear))
            hooks = [
                module.register_forward_hook(lambda *call, name=name: seen.update({name: call[2].dtype}))
                for name, module in (("input", backbone.embed), ("backbone", linear), ("head", head))
            ]
            total, terms = super().losses_of_step(phase)
            for hook in hooks:
                hook.remove()
            return total, terms

    settings = (f"out={tmp_path}", "schedule.max_steps=2", "trainer.precision=bf16-mixed")
    run_training(Recorded, composed("train_pose", *SMALL_RUN, *SMALL_MOTION, *settings), ProgressDisplay())
    assert seen == {"input": torch.float32, "backbone": torch.bfloat16, "head": torch.float32}


def test_hand_over_to_the_mesh_model(tmp_path: Path) -> None:
    """A lifting run's backbone starts the mesh model, frozen or not; what does not fit is named."""
    run_training(
        LiftingTask,
        composed("train_pose", *SMALL_RUN, *SMALL_MOTION, f"out={tmp_path}", "schedule.max_steps=2"),
        ProgressDisplay(),
    )
    weights = tmp_path / "model.safetensors"
    task = MeshRecoveryTask(
        composed(
            "train_mesh",
            *SMALL_MESH,
            f"backbone.weights={weights}",
            "schedule.backbone_learning_rate_scale=0.0",
        )
    )
    lifted = load_lifting_model(weights)[0].backbone.state_dict()
    assert all(torch.equal(value, lifted[name]) for name, value in task.model.backbone.state_dict().items())
    rates = {group["scale"] for group in task.configure_optimizers().param_groups}
    assert rates == {0.0, 1.0, 10.0}  # Muon, by default, has ten times the rate
    # Even where the curriculum holds blocks back, the head learns on the features of the finished model.
    task.curriculum = Curriculum((replace(task.curriculum.phases[0], active_blocks=0),))
    task.training_step(0, 0)
    assert task.model.backbone.num_active_blocks is None
    held_back = "curriculum=[{until:1.0,num_frames:9,batch_size:2,active_blocks:0}]"
    frozen = "schedule.backbone_learning_rate_scale=0.0"
    no_context = [*SMALL_MESH, held_back, "backbone.frame_context=none"]
    with pytest.raises(ValueError, match=r"begins with random numbers; give backbone\.weights=… or another"):
        MeshRecoveryTask(composed("train_mesh", *SMALL_MESH, "backbone.weights=null", frozen))
    with pytest.raises(ValueError, match=r"trunk_learning_rate_scale=0\.5 is .* leave it at 1"):
        MeshRecoveryTask(
            composed(
                "train_mesh",
                *SMALL_MESH,
                "backbone.frame_context=none",
                "backbone.weights=null",
                "schedule.trunk_learning_rate_scale=0.5",
            )
        )
    with pytest.raises(ValueError, match="has no frame context that could learn then"):
        MeshRecoveryTask(composed("train_mesh", *no_context, "backbone.weights=null"))
    too_deep = "curriculum=[{until:1.0,num_frames:9,batch_size:2,active_blocks:9}]"
    with pytest.raises(ValueError, match=r"active_blocks=9, and this backbone has \d; give no more"):
        MeshRecoveryTask(composed("train_mesh", *SMALL_MESH, too_deep, "backbone.weights=null"))
    MeshRecoveryTask(composed("train_mesh", *SMALL_MESH, too_deep, f"backbone.weights={weights}", frozen))
    with pytest.raises(
        ValueError, match=r"embed\.weight is \(16, 3\) in the file and \(24, 3\) in the model"
    ):
        MeshRecoveryTask(
            composed("train_mesh", *SMALL_MESH, "backbone.dim=24", f"backbone.weights={weights}")
        )


@pytest.mark.slow
def test_hand_over_through_the_commands(small_run: Path, tmp_path: Path) -> None:
    weights = small_run / "model.safetensors"
    small = [*SMALL_MESH, "evaluation.max_stretches=1", "schedule.validation_interval=1", f"out={tmp_path}"]
    finished = run_tool(
        "train_mesh.py", *small, f"backbone.weights={weights}", "schedule.backbone_learning_rate_scale=0.0"
    )
    assert finished.returncode == 0, finished.stderr
    before, after = read_weights(weights)[0], read_weights(tmp_path / "model.safetensors")[0]
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("backbone."))


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_composes(experiment: str) -> None:
    config = composed("train_pose", f"experiment={experiment}", "data=procedural")
    assert config["head"]["dim_representation"] == config["backbone"]["dim_representation"]
    assert config["out"] == f"outputs/{experiment}"


@pytest.mark.parametrize("tool", ["train_pose.py", "eval_pose.py"])
def test_help_and_typos(tool: str) -> None:
    shown = run_tool(tool, "--help")
    assert shown.returncode == 0
    assert "python tools/" in shown.stdout
    assert "clips: prepared, virtual_cameras" in shown.stdout
    mistyped = run_tool(tool, "devise=cpu")
    assert mistyped.returncode == 2
    assert "devise" in mistyped.stderr
    assert len(mistyped.stderr.strip().splitlines()) == 1, mistyped.stderr


@pytest.mark.slow
def test_wrong_values_end_with_one_sentence(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    store = tmp_path_factory.mktemp("store")
    write_lifting_store(store)
    for tool, arguments, expected in (
        ("eval_pose.py", ["weights=nowhere.safetensors"], "nowhere.safetensors"),
        ("train_pose.py", ["loss.velocitty=1", f"out={tmp_path}"], "velocitty"),
        ("train_pose.py", ["experiment=pose_h36m_xs", "data.root=nowhere", f"out={tmp_path}"], "nowhere"),
        ("train_pose.py", [*SMALL_MOTION, "resume=true", f"out={tmp_path}"], "last.ckpt"),
        ("train_pose.py", ["clips=prepared", f"out={tmp_path}"], "add data=prepared_lifting"),
        (
            "train_pose.py",
            ["data=prepared_lifting", f"data.root={store}", f"out={tmp_path}"],
            "clips=prepared",
        ),
        ("train_pose.py", ["backbone=residual_mlp", f"out={tmp_path}"], "set head.num_tokens=1"),
        ("train_pose.py", ["+trainer.devices=2", f"out={tmp_path}"], "a run uses one device"),
        (
            "train_pose.py",
            ["trainer.precision=16-true", f"out={tmp_path}"],
            "choose one of 32-true, bf16-mixed",
        ),
        ("train_pose.py", ["trainer.accelerator=tpu", f"out={tmp_path}"], "choose one of auto, cpu, gpu"),
        (
            "train_mesh.py",
            ["head.rotation_frame=world", f"out={tmp_path}"],
            "head.rotation_frame=world is not a choice; choose one of crop, parent",
        ),
        ("train_pose.py", ["experiment=pose_nonsense", f"out={tmp_path}"], "pose_nonsense"),
        ("train_pose.py", ["loss.velocity=null", f"out={tmp_path}"], "loss.velocity takes a number"),
        ("train_pose.py", ["curriculum=null", f"out={tmp_path}"], "curriculum takes a list"),
        ("train_pose.py", ["clips.cameras=null", f"out={tmp_path}"], "clips.cameras takes a table"),
        ("train_pose.py", ["seed=1.5", f"out={tmp_path}"], "seed must be a whole number"),
        ("train_pose.py", ["schedule.validation_interval=2.5", f"out={tmp_path}"], "must be a whole number"),
        ("train_pose.py", ["validation.max_sequences=0", f"out={tmp_path}"], "of at least 1, or null, not 0"),
        ("train_pose.py", ["backbone.skeleton=coco_17", f"out={tmp_path}"], "joint of coco_17"),
        ("train_pose.py", ["backbone.in_channels=2", f"out={tmp_path}"], "takes 2 numbers for each joint"),
        (
            "train_pose.py",
            [
                *("backbone=ssr_stf_xs_published", f"out={tmp_path}"),
                "curriculum=[{until: 1.0, num_frames: 9, batch_size: 2, active_blocks: 0}]",
            ],
            "no frame context that",
        ),
        (
            "train_pose.py",
            ["backbone=residual_mlp", "head.num_tokens=1", f"out={tmp_path}"],
            "curriculum have 5, 9, 27 frames; give the curriculum clips of 9 frames only",
        ),
        (
            "train_pose.py",
            [
                *("backbone=residual_mlp", "head.num_tokens=1", f"out={tmp_path}"),
                "curriculum=[{until: 1.0, num_frames: 9, batch_size: 2, active_blocks: 0}]",
            ],
            "no frame context that",
        ),
        (
            "train_pose.py",
            ["experiment=pose_mlp", "backbone.num_frames=27", f"out={tmp_path}"],
            "set backbone.num_frames=9",
        ),
        ("train_pose.py", ["data=mixed", f"out={tmp_path}"], "mixtures, data=mixed, are for"),
        (
            "train_pose.py",
            [
                *("experiment=pose_h36m_xs", "clips=prepared", f"data.root={store}"),
                *("validation.split=val", f"out={tmp_path}"),
            ],
            "validation.split=test",
        ),
    ):
        finished = run_tool(tool, *arguments)
        assert finished.returncode == 2, (tool, finished.stderr)
        assert expected in finished.stderr
        assert len(finished.stderr.strip().splitlines()) == 1, finished.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_interrupted_run_says_how_it_goes_on(tmp_path: Path) -> None:
    arguments = [*SMALL_RUN, *SMALL_MOTION, f"out={tmp_path}", "schedule.max_steps=100000"]
    status, errors = interrupt_tool_after_checkpoint("train_pose.py", *arguments, out=tmp_path)
    saved = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    sentence = f"Interrupted after {saved} steps, which are saved"
    to_go_on = "to go on, give the same command with resume=true"
    assert (status, errors) == (2, f"error: {sentence}; {to_go_on}.\n")
    finished = run_tool("train_pose.py", *arguments, "resume=true", f"schedule.max_steps={saved + 1}")
    assert finished.returncode == 0, finished.stderr
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == saved + 1
