"""What runs on the CPU runs on another device, with the same results (`simulated_device`)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_fixtures import composed
from lifting_fixtures import SMALL_MOTION, SMALL_RUN, write_lifting_store
from mesh_fixtures import mesh_sequence
from simulated_device import simulated_device
from torch import Tensor

from body_models.open_body import load_open_body, load_open_body_regressor
from body_models.render import render
from core.camera import PinholeCamera
from core.keypoints.track import Track
from core.run_folder import choose_device
from core.skeleton import H36M_17
from core.ssr_stf.lifting import load_lifting_model
from core.ssr_stf.lifting_prediction import levelled, lift_track
from core.ssr_stf.lifting_training import LiftingTask
from mesh_head.benchmark_evaluation import BenchmarkEvaluator, ModelRecovery
from mesh_head.predictor import MeshPredictor
from mesh_head.protocols import PROTOCOLS
from mesh_head.training import MeshRecoveryTask
from mesh_head.weights import find_weights, load_mesh_model

CPU = torch.device("cpu")
MLP = ["backbone=residual_mlp", "backbone.num_frames=9", "backbone.dim_hidden=64", "head.num_tokens=1"]
SMALL_MESH = [
    "experiment=scratch",
    "schedule.max_seconds=null",
    "schedule.max_steps=4",
    "curriculum=[{until:1.0,num_frames:9,batch_size:2,active_blocks:null}]",
    "data.num_sequences={train:2,val:1}",
    "data.num_frames=60",
    "evaluation.max_stretches=1",
]


def test_tensors_of_both_devices_do_not_meet() -> None:
    with simulated_device() as device:
        there, here = torch.ones(3, device=device), torch.ones(3)
        assert there.device == device != here.device
        assert (there + here.to(device)).tolist() == [2.0, 2.0, 2.0]
        with pytest.raises(RuntimeError, match="one \\(3,\\) of the CPU"):
            there + here
        with pytest.raises(TypeError):
            there.numpy()
        np.testing.assert_array_equal(there.cpu().numpy(), here.numpy())


def _two_steps(task: Any) -> tuple[list[float], dict[str, float]]:
    """Losses before and after a step of training, and what validation says then."""
    optimizer = task.configure_optimizers()
    totals = []
    for _ in range(2):
        total, _ = task.losses_of_step(task.curriculum.phases[-1])
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    return totals, task.validation_errors()


@pytest.mark.parametrize(
    ("task", "command", "overrides"),
    [
        pytest.param(MeshRecoveryTask, "train_mesh", [*SMALL_MESH, "backbone.dim=16"], id="mesh"),
        pytest.param(MeshRecoveryTask, "train_mesh", [*SMALL_MESH, *MLP], id="mesh by the residual MLP"),
        pytest.param(LiftingTask, "train_pose", [*SMALL_RUN, *SMALL_MOTION], id="lifting"),
    ],
)
def test_training(task: Any, command: str, overrides: list[str]) -> None:
    config = composed(command, *overrides)
    expected_totals, expected_errors = _two_steps(task(config))
    on_device = task(config)
    with simulated_device() as device:
        on_device.to(device)
        totals, errors = _two_steps(on_device)
    assert totals == pytest.approx(expected_totals, rel=1e-4)
    assert errors == pytest.approx(expected_errors, rel=1e-2)


def test_training_on_prepared_data(tmp_path: Path) -> None:
    write_lifting_store(tmp_path)
    source = ["clips=prepared", "data=prepared_lifting", f"data.root={tmp_path}", "validation.split=test"]
    config = composed("train_pose", *SMALL_RUN, *source)
    expected_totals, expected_errors = _two_steps(LiftingTask(config))
    on_device = LiftingTask(config)
    with simulated_device() as device:
        on_device.to(device)
        totals, errors = _two_steps(on_device)
    assert totals == pytest.approx(expected_totals, rel=1e-4)
    assert errors == pytest.approx(expected_errors, rel=1e-2)


def _track() -> Track:
    """Somebody at another frame rate than that of training, with a gap."""
    sequence = mesh_sequence(50)
    kept = np.r_[0:20, 26:50]
    return Track(
        person_id="1",
        skeleton=H36M_17,
        frame_ids=sequence.frame_ids[kept],
        keypoints_px=sequence.keypoints_px[kept],
        confidence=sequence.confidence[kept],
        fps=50.0,
        image_size=sequence.image_size,
    )


def _recovered(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices, up, and a picture, all on the CPU."""
    predictor = MeshPredictor.from_file(
        find_weights("shipped"),
        body=load_open_body(),
        regressor=load_open_body_regressor("h36m_17"),
        device=device,
    )
    with torch.no_grad():
        (motion,) = predictor.levelled([predictor.recover(_track())], None)
        vertices_m = predictor.body(motion.parameters).vertices_m
        still = torch.eye(3, device=device), torch.zeros(3, device=device)
        camera = PinholeCamera(motion.K, *still, image_size=motion.image_size)
        picture = render(vertices_m[:1], predictor.body.faces, camera, renderer="torch", supersample=2)
    assert vertices_m.device == picture.rgb.device == device
    return vertices_m.cpu(), motion.level.R_level_cam.cpu(), picture.rgb.cpu()


def test_prediction_and_pictures() -> None:
    expected_m, expected_level, expected_rgb = _recovered(CPU)
    with simulated_device() as device:
        vertices_m, level, rgb = _recovered(device)
    torch.testing.assert_close(vertices_m, expected_m, atol=1e-3, rtol=0)
    torch.testing.assert_close(level, expected_level, atol=1e-3, rtol=0)
    assert float((rgb - expected_rgb).abs().mean()) < 1e-3 < float(expected_rgb.mean())


def _lifted(device: torch.device) -> tuple[Tensor, Tensor]:
    model, clip = load_lifting_model(find_weights("shipped_lifting"))
    with torch.no_grad():
        lifted = lift_track(model.to(device), clip, _track(), mirror_test=True, device=device)
        (lifted,) = levelled([lifted], None)
    assert lifted.joints.device == device
    assert lifted.pelvis_cam_m is not None
    return lifted.joints.cpu(), lifted.pelvis_cam_m.cpu()


def test_lifting() -> None:
    expected = _lifted(CPU)
    with simulated_device() as device:
        found = _lifted(device)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def _errors(device: torch.device) -> dict[str, dict[str, float]]:
    model, clip = load_mesh_model(find_weights("shipped"))
    evaluator = BenchmarkEvaluator(
        recover=ModelRecovery(model=model, window_frames=int(clip["num_frames"])),
        load_body=load_open_body,
        regressor=load_open_body_regressor("h36m_17"),
        protocols=list(PROTOCOLS.values()),
        device=device,
    )
    metrics = evaluator.evaluate(mesh_sequence(40, gender="female")).metrics
    return {name: metric.errors().as_dict() for name, metric in metrics.items()}


def test_evaluation_under_every_protocol() -> None:
    expected = _errors(CPU)
    with simulated_device() as device:
        found = _errors(device)
    assert found.keys() == expected.keys()
    for name, errors in found.items():
        assert errors == pytest.approx(expected[name], rel=1e-3)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("tpu", "choose auto, cpu, cuda or cuda:N"),
        ("cuda:", "There is no device 'cuda:'"),
        ("cuda:2", "device=cuda:2 was asked for, but torch sees 2 GPUs"),
    ],
)
def test_devices_that_are_not_there(name: str, problem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=problem):
        choose_device(name)
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == CPU
    with pytest.raises(ValueError, match="device=cuda:0 was asked for, but torch sees no GPU"):
        choose_device("cuda:0")
