"""Training as a whole: it learns, it repeats itself, it survives being killed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command_fixtures import composed, kill_tool_after_checkpoint, run_tool

from core.progress import ProgressDisplay
from core.training import run_training
from mesh_head.training import MeshRecoveryTask

SMALL = [
    "backbone.weights=null",
    "backbone.context_dim=128",
    "backbone.dim=32",
    "schedule.max_seconds=null",
    "schedule.max_steps=6",
    "schedule.validation_interval=3",
    "data.num_sequences={train:2,val:1}",
    "data.num_frames=60",
    "curriculum=[{until:0.5,num_frames:9,batch_size:4,active_blocks:0},{until:1.0,num_frames:9,batch_size:2,active_blocks:null}]",
    "evaluation.max_stretches=1",
]


def _config(*overrides: str) -> dict[str, Any]:
    return composed("train_mesh", *SMALL, *overrides)


@pytest.mark.slow
def test_one_seed_one_run(tmp_path: Path) -> None:
    histories = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        result = run_training(
            MeshRecoveryTask, _config(f"out={tmp_path / name}", f"seed={seed}"), ProgressDisplay()
        )
        histories.append([{k: v for k, v in e.items() if k != "seconds"} for e in result.metrics["history"]])
    assert histories[0] == histories[1]
    assert histories[0] != histories[2]


@pytest.mark.slow
def test_trunk_learns_at_the_peak_rate_when_it_joins(tmp_path: Path) -> None:
    rates: list[dict[str, float]] = []

    class Recorded(MeshRecoveryTask):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            trunk = {id(parameter) for parameter in self.model.backbone.trunk_parameters()}
            rates.append(
                {
                    "trunk" if id(group["params"][0]) in trunk else "others": group["lr"]
                    for group in optimizer.param_groups
                }
            )

    config = _config(f"out={tmp_path}", "schedule.warmup_steps=0", "schedule.trunk_learning_rate_scale=0.5")
    run_training(Recorded, config, ProgressDisplay())
    peak = config["schedule"]["learning_rate"]
    assert rates[0]["others"] == pytest.approx(peak)
    assert rates[3] == pytest.approx({"others": 0.51 * peak, "trunk": 0.5 * peak})
    assert rates[5]["trunk"] < 0.2 * peak


@pytest.mark.slow
def test_overfits_one_batch_below_five_millimetres() -> None:
    """Without noise, one small batch is learned to the millimetre: the whole line from keypoints to vertices."""
    torch.manual_seed(0)
    task = MeshRecoveryTask(_config("noise=null", "backbone.context_dim=256"))
    phase = task.curriculum.phases[-1]
    ((clip, target),) = task.training_clips(0, phase)
    steps = 1500
    optimizer = torch.optim.Adam(task.model.parameters(), lr=2e-3)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    vertex_error_m = torch.tensor(1.0)
    for _ in range(steps):
        predicted = task.model(clip.keypoints)
        points = task.synthesizer.body(predicted).relative_to_pelvis()
        loss = task.loss.total(task.loss.terms(predicted, points, target))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        vertices = task.body(task.model(clip.keypoints)).vertices_m
        true = task.body(target.parameters).vertices_m
        pelvis = task.regressor(vertices)[..., :1, :], task.regressor(true)[..., :1, :]
        vertex_error_m = ((vertices - pelvis[0]) - (true - pelvis[1])).norm(dim=-1).mean()
    assert vertex_error_m < 0.005


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
        run_training(MeshRecoveryTask, _config(f"out={tmp_path}", "resume=true"), ProgressDisplay())
