"""Training as a whole: it learns, it repeats itself, it survives being killed."""

import errno
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
import torch
from command_fixtures import composed, kill_tool_after_checkpoint, run_tool

from core.progress import ProgressDisplay
from core.run_folder import set_aside_previous_run
from core.training_run import run_training
from core.weights import read_weights
from mesh_head.training import MeshRecoveryTask

SMALL = [
    "backbone.weights=null",
    "backbone.frame_context=mirror_mlp",
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
                    ("trunk" if id(group["params"][0]) in trunk else "others")
                    + (" by Muon" if group["muon"] else ""): group["lr"]
                    for group in optimizer.param_groups
                }
            )

    scales = ("schedule.backbone_learning_rate_scale=1.0", "schedule.trunk_learning_rate_scale=0.5")
    config = _config(f"out={tmp_path}", "schedule.warmup_steps=0", *scales)
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
    config = _config(f"curriculum=[{phases}]")
    if problem is None:
        MeshRecoveryTask(config)
        return
    with pytest.raises(ValueError, match=problem):
        MeshRecoveryTask(config)


def test_blocks_that_never_learn_are_not_left_at_random() -> None:
    with pytest.raises(
        ValueError, match=r"trunk_learning_rate_scale=0 leaves .* these begin with random numbers"
    ):
        MeshRecoveryTask(_config("schedule.trunk_learning_rate_scale=0.0"))


def test_a_batch_that_a_head_cannot_take_is_refused_before_it_comes() -> None:
    sizes = "curriculum=[{until:0.5,num_frames:9,batch_size:2,active_blocks:null},"
    sizes += "{until:1.0,num_frames:9,batch_size:1,active_blocks:null}]"
    with pytest.raises(
        ValueError, match=r"batch_size=1, and head=flattened .* 2 clips or more, or head=slim"
    ):
        MeshRecoveryTask(_config(sizes, "head=flattened", "head.dim_hidden=16"))
    MeshRecoveryTask(_config(sizes))


def test_supervised_vertices_are_counted_in_whole_numbers() -> None:
    for number in (1.5, 0):
        with pytest.raises(
            ValueError,
            match=rf"^num_supervised_vertices must be a whole number of at least 1, not {number}\.$",
        ):
            MeshRecoveryTask(_config(f"num_supervised_vertices={number}"))


def test_every_parameter_has_its_optimiser() -> None:
    config = _config(
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

    config = _config(
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

    config = _config(f"out={tmp_path}", "schedule.max_steps=2", "schedule.weight_average_decay=0.2")
    task = run_training(Recorded, config, ProgressDisplay()).task
    start, first, second = weights
    average = second.lerp(first.lerp(start, 2 / 11), 0.2)  # the first average is short
    assert not torch.allclose(average, second, atol=1e-4)
    saved = read_weights(tmp_path / "model.safetensors")[0]
    torch.testing.assert_close(saved["head.hidden.weight"], average)
    torch.testing.assert_close(task.model.head.hidden.weight, average)


def test_the_average_is_what_is_validated(tmp_path: Path) -> None:
    task = MeshRecoveryTask(_config(f"out={tmp_path}", "schedule.weight_average_decay=0.9"))
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

    config = _config(f"out={tmp_path}", "schedule.max_steps=3", "schedule.validation_interval=1")
    metrics = run_training(Timed, config, ProgressDisplay()).metrics
    assert [entry["seconds"] for entry in metrics["history"]] == [1.0, 2.0, 3.0]
    assert metrics["seconds"] == 3.0


def test_half_precision_is_the_models_alone(tmp_path: Path) -> None:
    """What a body or a loss computes in bf16 is off by millimetres."""
    seen: dict[str, torch.dtype] = {}

    class Recorded(MeshRecoveryTask):
        def losses_of(self, batch: Any, loss: Any) -> Any:
            (clip, target), *_ = batch
            model = self.model.backbone.embed
            handle = model.register_forward_hook(lambda *call: seen.update(model=call[2].dtype))
            total, terms = super().losses_of(batch, loss)
            handle.remove()
            seen["clip"], seen["loss"] = clip.keypoints.dtype, total.dtype
            exact = self.synthesizer.body(target.parameters).relative_to_pelvis().joints_m
            torch.testing.assert_close(exact, target.points.joints_m, rtol=0, atol=1e-5)
            return total, terms

    config = _config(f"out={tmp_path}", "trainer.precision=bf16-mixed")
    finished = run_training(Recorded, config, ProgressDisplay())
    assert seen == {"model": torch.bfloat16, "clip": torch.float32, "loss": torch.float32}
    assert finished.metrics["steps"] == 6


def test_a_run_goes_on_as_it_was_configured_or_not_at_all(tmp_path: Path) -> None:
    run_training(MeshRecoveryTask, _config(f"out={tmp_path}"), ProgressDisplay())
    kept = (tmp_path / "config.yaml").read_text()
    for override, problem in (
        ("seed=1", "with seed=0, not 1"),
        ("backbone.dim=24", "backbone.dim=32, not 24"),
    ):
        with pytest.raises(ValueError, match=problem):
            run_training(
                MeshRecoveryTask, _config(f"out={tmp_path}", "resume=true", override), ProgressDisplay()
            )
        assert (tmp_path / "config.yaml").read_text() == kept
    longer = _config(f"out={tmp_path}", "resume=true", "schedule.max_steps=7")
    assert run_training(MeshRecoveryTask, longer, ProgressDisplay()).metrics["steps"] == 7
    # It ended within a validation interval; what goes on from there takes no more time than it takes.
    longer = _config(f"out={tmp_path}", "resume=true", "schedule.max_steps=9")
    metrics = run_training(MeshRecoveryTask, longer, ProgressDisplay()).metrics
    assert metrics["steps"] == 9
    assert metrics["seconds"] < 100
    kept = (tmp_path / "config.yaml").read_text()
    with pytest.raises(ValueError, match=r"would be \d+%: in an earlier phase of its curriculum"):
        run_training(
            MeshRecoveryTask,
            _config(f"out={tmp_path}", "resume=true", "schedule.max_steps=100"),
            ProgressDisplay(),
        )
    assert (tmp_path / "config.yaml").read_text() == kept


def test_a_finished_run_that_is_resumed_stays_as_it_is(tmp_path: Path) -> None:
    by_time = ["schedule.max_seconds=0.5", "schedule.max_steps=null", f"out={tmp_path}"]
    first = run_training(MeshRecoveryTask, _config(*by_time), ProgressDisplay()).metrics
    weights = read_weights(tmp_path / "model.safetensors")[0]
    again = run_training(MeshRecoveryTask, _config(*by_time, "resume=true"), ProgressDisplay()).metrics
    assert again["steps"] == first["steps"]
    assert again["val"] == first["val"]
    after = read_weights(tmp_path / "model.safetensors")[0]
    assert all(torch.equal(weights[name], after[name]) for name in weights)


def test_dropout_is_the_seeds(tmp_path: Path) -> None:
    """Also of a run that comes after another in one process."""
    changes = ["backbone.dropout=0.3", "backbone.drop_path=0.2"]
    runs = []
    for name in ("a", "b"):
        run_training(MeshRecoveryTask, _config(*changes, f"out={tmp_path / name}"), ProgressDisplay())
        runs.append(read_weights(tmp_path / name / "model.safetensors")[0])
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_dropout_of_other_seeds_and_steps_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = set()
    for seed in (0, 1):
        task = MeshRecoveryTask(_config(f"seed={seed}", f"out={tmp_path}"))
        for step in (7, 8):
            monkeypatch.setattr(MeshRecoveryTask, "global_step", step)
            with task._random_of_step():
                drawn.add(float(torch.rand(())))
    assert len(drawn) == 4


def test_a_run_that_diverges_leaves_no_weights(tmp_path: Path) -> None:
    class Diverging(MeshRecoveryTask):
        def losses_of_step(self, phase: Any) -> Any:
            total, terms = super().losses_of_step(phase)
            return total * torch.nan, terms

        def validation_errors(self) -> dict[str, float | int]:
            return {}

    with pytest.raises(ValueError, match=r"The run diverged: after 3 steps its weights .*_learning_rate\.$"):
        run_training(Diverging, _config(f"out={tmp_path}"), ProgressDisplay())
    assert not (tmp_path / "model.safetensors").exists()


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path: Path) -> None:
    class Diverging(MeshRecoveryTask):
        def losses_of_step(self, phase: Any) -> Any:
            total, terms = super().losses_of_step(phase)
            return total * (torch.nan if self.global_step == 4 else 1.0), terms

        def validation_errors(self) -> dict[str, float | int]:
            return {}

    config = _config(f"out={tmp_path}", "schedule.max_steps=8", "schedule.validation_interval=2")
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
    config = _config(f"out={tmp_path}", "schedule.max_steps=3", "schedule.validation_interval=1")
    with pytest.raises(RuntimeError, match="power cut"):
        run_training(MeshRecoveryTask, config, ProgressDisplay())
    for path, step in ((linked, 1), (checkpoint, 2)):
        assert torch.load(path, weights_only=True)["global_step"] == step
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_all_code_that_trained_a_run_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for code, steps in (("one", 6), ("one", 7), ("two", 8)):
        monkeypatch.setattr("core.training_run.describe_code", lambda code=code: f"{code}\n")
        resume = [] if steps == 6 else ["resume=true"]
        config = _config(f"out={tmp_path}", f"schedule.max_steps={steps}", *resume)
        run_training(MeshRecoveryTask, config, ProgressDisplay())
    assert (tmp_path / "commit.txt").read_text().split("\n") == ["one", "", "gone on with:", "two", ""]


def test_half_precision_of_gpus_is_not_taken_for_that_of_cpus(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"trainer\.precision=16-mixed needs a GPU; on the CPU use bf16-mixed"
    ):
        MeshRecoveryTask(_config(f"out={tmp_path}", "trainer.precision=16-mixed", "trainer.accelerator=cpu"))


def test_damaged_runs_are_not_resumed(tmp_path: Path) -> None:
    run_training(MeshRecoveryTask, _config(f"out={tmp_path}"), ProgressDisplay())
    resumed = _config(f"out={tmp_path}", "resume=true")
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
        run_training(MeshRecoveryTask, _config(f"out={tmp_path}", f"seed={seed}"), ProgressDisplay())
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


def test_apples_gpu_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no double precision; Lightning's "auto" would take it."""
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    config = _config(f"out={tmp_path}", "schedule.max_steps=1", "schedule.validation_interval=1")
    result = run_training(MeshRecoveryTask, config, ProgressDisplay())
    assert result.metrics["steps"] == 1
    assert next(result.task.model.parameters()).device.type == "cpu"
