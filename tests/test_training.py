"""Training as a whole: it learns, by its schedule and its seed, what is saved."""

import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from training_fixtures import small_config

from core.progress import ProgressDisplay
from core.training_run import run_training
from core.weights import read_weights
from mesh_head.training import MeshRecoveryTask


@pytest.mark.slow
def test_one_seed_one_run(tmp_path: Path) -> None:
    histories = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        result = run_training(
            MeshRecoveryTask, small_config(f"out={tmp_path / name}", f"seed={seed}"), ProgressDisplay()
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
                    ("trunk" if id(group["params"][0]) in trunk else "others")
                    + (" by Muon" if group["muon"] else ""): group["lr"]
                    for group in optimizer.param_groups
                }
            )

    scales = ("schedule.backbone_learning_rate_scale=1.0", "schedule.trunk_learning_rate_scale=0.5")
    config = small_config(f"out={tmp_path}", "schedule.warmup_steps=0", *scales)
    run_training(Recorded, config, ProgressDisplay())
    peak, muon_peak = (config["schedule"][key] for key in ("learning_rate", "muon_learning_rate"))
    assert rates[0]["others"] == pytest.approx(peak)
    assert rates[0]["others by Muon"] == pytest.approx(muon_peak)
    expected = {"others": 0.51 * peak, "others by Muon": 0.51 * muon_peak}
    expected |= {"trunk": 0.5 * peak, "trunk by Muon": 0.5 * muon_peak}
    assert rates[3] == pytest.approx(expected)
    assert rates[5]["trunk"] < 0.2 * peak


@pytest.mark.slow
def test_overfits_one_batch_below_five_millimetres() -> None:
    """Without noise, one small batch is learned to the millimetre: the whole line from keypoints to vertices."""
    torch.manual_seed(0)
    task = MeshRecoveryTask(small_config("noise=null", "backbone.context_dim=256"))
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


@pytest.mark.parametrize(
    ("active_blocks", "problem"),
    [
        (
            ["1"],
            r"ends with active_blocks=1, and all 3 blocks would be saved .* set backbone\.num_blocks=1\.$",
        ),
        (
            ["0"],
            r"ends with active_blocks=0, and all 3 blocks would be saved .* set backbone\.num_blocks=0\.$",
        ),
        (["null", "2"], r"ends with active_blocks=2, and all 3 blocks would be saved"),
        (["3", "0"], r"ends with active_blocks=0, and all 3 blocks would be saved"),
        (["0", "3"], None),
        (["1", "null"], None),
    ],
)
def test_what_is_saved_has_learned_together(active_blocks: list[str], problem: str | None) -> None:
    """All blocks are saved and used; a curriculum that ends with fewer would leave some as they began."""
    phases = ",".join(
        f"{{until:{(number + 1) / len(active_blocks)},num_frames:9,batch_size:2,active_blocks:{active}}}"
        for number, active in enumerate(active_blocks)
    )
    config = small_config(f"curriculum=[{phases}]")
    if problem is None:
        MeshRecoveryTask(config)
        return
    with pytest.raises(ValueError, match=problem):
        MeshRecoveryTask(config)


def test_blocks_that_never_learn_are_not_left_at_random() -> None:
    with pytest.raises(
        ValueError, match=r"trunk_learning_rate_scale=0 leaves .* these begin with random numbers"
    ):
        MeshRecoveryTask(small_config("schedule.trunk_learning_rate_scale=0.0"))


def test_a_batch_that_a_head_cannot_take_is_refused_before_it_comes() -> None:
    sizes = "curriculum=[{until:0.5,num_frames:9,batch_size:2,active_blocks:null},"
    sizes += "{until:1.0,num_frames:9,batch_size:1,active_blocks:null}]"
    with pytest.raises(
        ValueError, match=r"batch_size=1, and head=flattened .* 2 clips or more, or head=slim"
    ):
        MeshRecoveryTask(small_config(sizes, "head=flattened", "head.dim_hidden=16"))
    MeshRecoveryTask(small_config(sizes))


def test_supervised_vertices_are_counted_in_whole_numbers() -> None:
    for number in (1.5, 0):
        with pytest.raises(
            ValueError,
            match=rf"^num_supervised_vertices must be a whole number of at least 1, not {number}\.$",
        ):
            MeshRecoveryTask(small_config(f"num_supervised_vertices={number}"))


def test_every_parameter_has_its_optimiser() -> None:
    config = small_config(
        *("schedule.learning_rate=2e-3", "schedule.muon_learning_rate=1e-2", "schedule.weight_decay=0.03"),
        *("schedule.backbone_learning_rate_scale=0.4", "schedule.trunk_learning_rate_scale=0.5"),
        "schedule.adam_beta2=0.97",
    )
    task = MeshRecoveryTask(config)
    groups = task.configure_optimizers().param_groups
    assert {group["betas"] for group in groups} == {(0.9, 0.97)}
    found = {
        parameter: (group["weight_decay"], group["muon"], group["joined_at"], pytest.approx(group["scale"]))
        for group in groups
        for parameter in group["params"]
    }
    assert len(found) == sum(len(group["params"]) for group in groups)
    backbone, head = task.model.backbone, task.model.head
    trunk, muon = set(backbone.trunk_parameters()), {*backbone.muon_matrices(), *head.muon_matrices()}
    assert head.hidden.weight in muon
    assert backbone.embed.weight not in muon
    expected = {}
    for name, parameter in task.model.named_parameters():
        scale = 1.0 if name.startswith("head.") else 0.4 * 0.5 if parameter in trunk else 0.4
        expected[parameter] = (
            0.03 if parameter.ndim > 1 else 0.0,
            parameter in muon,
            0.5 if parameter in trunk else 0.0,
            5 * scale if parameter in muon else scale,
        )
    assert found == expected


def test_steps_follow_the_schedule(tmp_path: Path) -> None:
    rates: list[dict[str, float]] = []
    gradient_norms: list[float] = []

    class Recorded(MeshRecoveryTask):
        def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
            trunk = set(self.model.backbone.trunk_parameters())
            names = {parameter: name.split(".")[0] for name, parameter in self.model.named_parameters()}
            names |= dict.fromkeys(trunk, "trunk")
            rates.append(
                {
                    names[group["params"][0]] + (" by Muon" if group["muon"] else ""): group["lr"]
                    for group in optimizer.param_groups
                }
            )

        def on_train_batch_end(self, *of_batch: Any) -> None:
            super().on_train_batch_end(*of_batch)
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            gradient_norms.append(float(torch.stack([gradient.norm() for gradient in gradients]).norm()))

    config = small_config(
        *(f"out={tmp_path}", "schedule.max_steps=4", "schedule.warmup_steps=2", "schedule.decay=exponential"),
        *("schedule.final_learning_rate_fraction=0.0625", "schedule.max_gradient_norm=0.001"),
        *("schedule.learning_rate=1e-3", "schedule.muon_learning_rate=4e-3"),
        *("schedule.backbone_learning_rate_scale=0.5", "schedule.trunk_learning_rate_scale=0.2"),
    )
    assert run_training(Recorded, config, ProgressDisplay()).metrics["seconds"] > 0
    # Halved at each of four steps, after a warm-up of two; the trunk joins at the third.
    for step, (share, trunk_share) in enumerate(((0.5, 0.5), (0.5, 1.0), (0.25, 1.0), (0.125, 0.25))):
        peaks = {"head": 1e-3 * share, "backbone": 0.5e-3 * share, "trunk": 0.1e-3 * trunk_share}
        by_muon = {"head by Muon": 4e-3 * share, "trunk by Muon": 0.4e-3 * trunk_share}
        assert rates[step] == pytest.approx(peaks | by_muon)
    assert gradient_norms == pytest.approx([0.001] * 4, rel=1e-2)


def test_the_average_is_what_is_saved(tmp_path: Path) -> None:
    weights: list[torch.Tensor] = []

    class Recorded(MeshRecoveryTask):
        def record(self) -> None:
            weights.append(self.model.head.hidden.weight.detach().clone())

        def on_train_start(self) -> None:
            super().on_train_start()
            self.record()

        def on_train_batch_end(self, *of_batch: Any) -> None:
            super().on_train_batch_end(*of_batch)
            self.record()

    config = small_config(f"out={tmp_path}", "schedule.max_steps=2", "schedule.weight_average_decay=0.2")
    task = run_training(Recorded, config, ProgressDisplay()).task
    start, first, second = weights
    average = second.lerp(first.lerp(start, 2 / 11), 0.2)  # the first average is short
    assert not torch.allclose(average, second, atol=1e-4)
    saved = read_weights(tmp_path / "model.safetensors")[0]
    torch.testing.assert_close(saved["head.hidden.weight"], average)
    torch.testing.assert_close(task.model.head.hidden.weight, average)


def test_the_average_is_what_is_validated(tmp_path: Path) -> None:
    task = MeshRecoveryTask(small_config(f"out={tmp_path}", "schedule.weight_average_decay=0.9"))
    before = task.validation_errors()
    with torch.no_grad():
        task.model.head.pose.linear.bias += 1.0
    assert task.validation_errors() == before
    task.averaged_model = None
    assert task.validation_errors() != before


def test_validation_takes_none_of_a_runs_seconds(tmp_path: Path) -> None:
    now_s = 0.0

    class Timed(MeshRecoveryTask):
        def _clock_s(self) -> float:
            return now_s

        def losses_of_step(self, phase: Any) -> Any:
            nonlocal now_s
            now_s += 1.0
            return super().losses_of_step(phase)

        def validation_errors(self) -> dict[str, float | int]:
            nonlocal now_s
            now_s += 100.0
            return {}

        def final_errors(self, display: ProgressDisplay) -> dict[str, Any]:
            return {}

    config = small_config(f"out={tmp_path}", "schedule.max_steps=3", "schedule.validation_interval=1")
    metrics = run_training(Timed, config, ProgressDisplay()).metrics
    assert [entry["seconds"] for entry in metrics["history"]] == [1.0, 2.0, 3.0]
    assert metrics["seconds"] == 3.0


def test_half_precision_is_the_models_alone(tmp_path: Path) -> None:
    """What a body or a loss computes in bf16 is off by millimetres."""
    seen: dict[str, torch.dtype] = {}

    class Recorded(MeshRecoveryTask):
        def losses_of(self, batch: Any, loss: Any) -> Any:
            (clip, target), *_ = batch
            backbone = self.model.backbone
            linear = next(part for part in backbone.blocks.modules() if isinstance(part, torch.nn.Linear))
            handles = [
                linear.register_forward_hook(lambda *call: seen.update(model=call[2].dtype)),
                backbone.embed.register_forward_hook(lambda *call: seen.update(embedded=call[2].dtype)),
            ]
            total, terms = super().losses_of(batch, loss)
            for handle in handles:
                handle.remove()
            seen["clip"], seen["loss"] = clip.keypoints.dtype, total.dtype
            exact = self.synthesizer.body(target.parameters).relative_to_pelvis().joints_m
            torch.testing.assert_close(exact, target.points.joints_m, rtol=0, atol=1e-5)
            return total, terms

    config = small_config(f"out={tmp_path}", "trainer.precision=bf16-mixed")
    finished = run_training(Recorded, config, ProgressDisplay())
    of_bodies = {key: dtype for key, dtype in seen.items() if key != "model"}
    assert seen["model"] == torch.bfloat16
    assert of_bodies == dict.fromkeys(("embedded", "clip", "loss"), torch.float32)
    assert finished.metrics["steps"] == 6


def test_dropout_is_the_seeds(tmp_path: Path) -> None:
    """Also of a run that comes after another in one process."""
    changes = ["backbone.dropout=0.3", "backbone.drop_path=0.2"]
    runs = []
    for name in ("a", "b"):
        run_training(MeshRecoveryTask, small_config(*changes, f"out={tmp_path / name}"), ProgressDisplay())
        runs.append(read_weights(tmp_path / name / "model.safetensors")[0])
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_dropout_of_other_seeds_and_steps_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = set()
    for seed in (0, 1):
        task = MeshRecoveryTask(small_config(f"seed={seed}", f"out={tmp_path}"))
        for step in (7, 8):
            monkeypatch.setattr(MeshRecoveryTask, "global_step", step)
            with task._random_of_step():
                drawn.add(float(torch.rand(())))
    assert len(drawn) == 4


def test_half_precision_of_gpus_is_not_taken_for_that_of_cpus(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"trainer\.precision=16-mixed needs a GPU; on the CPU use bf16-mixed"
    ):
        MeshRecoveryTask(
            small_config(f"out={tmp_path}", "trainer.precision=16-mixed", "trainer.accelerator=cpu")
        )


def test_apples_gpu_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no double precision; Lightning's "auto" would take it."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = small_config(f"out={tmp_path}", "schedule.max_steps=1", "schedule.validation_interval=1")
    result = run_training(MeshRecoveryTask, config, ProgressDisplay())
    assert result.metrics["steps"] == 1
    assert next(result.task.model.parameters()).device.type == "cpu"
