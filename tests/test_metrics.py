import math

import numpy as np
import pytest
import torch

from core.rotations import rotvec_to_rotmat
from core.skeleton import H36M_17
from mesh_head.metrics import MeshMetrics, PosedPoints, similarity_aligned
from mesh_head.protocols import MOTIONBERT, PROTOCOLS, WHAM, find_protocol

FPS = 30.0


def _sequence(num_frames: int, seed: int) -> PosedPoints:
    generator = torch.Generator().manual_seed(seed)
    joints = torch.randn(num_frames, 17, 3, generator=generator, dtype=torch.float64)
    return PosedPoints(joints, torch.randn(num_frames, 50, 3, generator=generator, dtype=torch.float64))


def _moved(points: PosedPoints, joints: torch.Tensor, vertices: torch.Tensor) -> PosedPoints:
    return PosedPoints(points.joints_m + joints, points.vertices_m + vertices)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_truth_as_prediction_has_no_error(protocol) -> None:
    metrics = MeshMetrics(protocol)
    metrics.update(_sequence(6, 0), _sequence(6, 0), FPS)
    assert all(
        abs(value) < 1e-9 for name, value in metrics.errors().as_dict().items() if name != "num_frames"
    )


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_a_shift_of_everything_does_not_count(protocol) -> None:
    true = _sequence(6, 0)
    shift = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    metrics = MeshMetrics(protocol)
    metrics.update(_moved(true, shift, shift), true, FPS)
    assert metrics.errors().mpjpe_mm < 1e-9
    assert metrics.errors().mpve_mm < 1e-9


def test_protocols_differ_where_their_roots_do() -> None:
    """10 mm between regressed pelvis and hips: counted about the pelvis, invisible about the hips."""
    true = _sequence(6, 0)
    pelvis_alone = torch.zeros(6, 17, 3, dtype=torch.float64)
    pelvis_alone[:, H36M_17.index("pelvis"), 0] = 0.010
    predicted = _moved(true, pelvis_alone, torch.zeros(3, dtype=torch.float64))
    errors = {}
    for protocol in (WHAM, MOTIONBERT):
        metrics = MeshMetrics(protocol)
        metrics.update(predicted, true, FPS)
        errors[protocol.name] = metrics.errors()
    assert errors["wham"].mpjpe_mm == pytest.approx(0, abs=1e-9)
    assert errors["wham"].mpve_mm == pytest.approx(0, abs=1e-9)
    assert errors["motionbert"].mpjpe_mm == pytest.approx(10)
    assert errors["motionbert"].mpve_mm == pytest.approx(10)
    assert errors["motionbert"].pa_mpjpe_mm == pytest.approx(0, abs=1e-6)


def test_five_percent_scale() -> None:
    true = _sequence(4, 1)
    predicted = PosedPoints(true.joints_m * 1.05, true.vertices_m * 1.05)
    metrics = MeshMetrics(MOTIONBERT)
    metrics.update(predicted, true, FPS)
    ids = [H36M_17.index(name) for name in MOTIONBERT.joints]
    about_pelvis = (true.joints_m - true.joints_m[:, :1])[:, ids]
    assert metrics.errors().mpjpe_mm == pytest.approx(50 * about_pelvis.norm(dim=-1).mean().item())
    assert metrics.errors().pa_mpjpe_mm < 1e-6


def test_acceleration_in_both_units() -> None:
    """x = ½ a t² in all joints but the hips: the error is a, in mm/s²; per frame² it is a / fps²."""
    frames = 9
    true = PosedPoints(torch.zeros(frames, 17, 3), torch.zeros(frames, 2, 3))
    time_s = torch.arange(frames) / FPS
    joints = torch.zeros(frames, 17, 3)
    joints[..., 0] = 0.5 * 3.0 * time_s[:, None] ** 2
    hips = [H36M_17.index("left_hip"), H36M_17.index("right_hip")]
    joints[:, hips] = 0
    metrics = MeshMetrics(WHAM)
    metrics.update(PosedPoints(joints, true.vertices_m), true, FPS)
    share = 12 / 14  # two of the fourteen joints are the hips
    assert metrics.errors().accel_mm_per_s2 == pytest.approx(3000 * share, rel=1e-3)
    assert metrics.errors().accel_mm_per_frame2 == pytest.approx(3000 * share / FPS**2, rel=1e-3)


def test_frames_count_equally_across_sequences() -> None:
    metrics = MeshMetrics(MOTIONBERT)
    for frames, error_m in ((2, 0.01), (6, 0.03)):
        true = _sequence(frames, frames)
        offset = torch.full((frames, 17, 3), 0.0, dtype=torch.float64)
        offset[:, 1:, 0] = error_m
        metrics.update(_moved(true, offset, torch.zeros(3, dtype=torch.float64)), true, FPS)
    assert metrics.errors().mpjpe_mm == pytest.approx((2 * 10 + 6 * 30) / 8)
    assert metrics.errors().num_frames == 8


def test_short_sequences_have_no_acceleration() -> None:
    metrics = MeshMetrics(WHAM)
    metrics.update(_sequence(2, 0), _sequence(2, 1), FPS)
    assert math.isnan(metrics.errors().accel_mm_per_s2)


def test_similarity_alignment_undoes_a_similarity_but_never_reflects() -> None:
    true = torch.randn(5, 14, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    R = rotvec_to_rotmat(torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    moved = 1.7 * true @ R.transpose(-1, -2) + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(similarity_aligned(moved, true), true)
    mirrored = true * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert (similarity_aligned(mirrored, true) - true).norm(dim=-1).mean() > 0.1


def test_similarity_alignment_equals_a_naive_one() -> None:
    rng = np.random.default_rng(0)
    points, true = rng.normal(size=(14, 3)), rng.normal(size=(14, 3))
    centred, true_centred = points - points.mean(0), true - true.mean(0)
    U, singular, Vt = np.linalg.svd(true_centred.T @ centred)
    sign = np.diag([1, 1, np.sign(np.linalg.det(U @ Vt))])
    R = U @ sign @ Vt
    scale = (singular * np.diag(sign)).sum() / (centred**2).sum()
    expected = scale * centred @ R.T + true.mean(0)
    found = similarity_aligned(torch.from_numpy(points)[None], torch.from_numpy(true)[None])[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


def test_protocols_are_named_and_described() -> None:
    assert [H36M_17.index(name) for name in MOTIONBERT.joints] == [
        1,
        2,
        3,
        4,
        5,
        6,
        8,
        10,
        11,
        12,
        13,
        14,
        15,
        16,
    ]
    assert "mean of the two hips" in find_protocol("wham").describe()
    with pytest.raises(ValueError, match="motionbert, wham"):
        find_protocol("whan")
