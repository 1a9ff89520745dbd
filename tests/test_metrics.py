import json
import math
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_arrays import golden_arrays

from core.point_errors import similarity_aligned
from core.rotations import rotvec_to_rotmat
from core.skeleton import H36M_17
from mesh_head.metrics import FrameErrors, MeshErrors, MeshMetrics, PosedPoints, compare
from mesh_head.protocols import MOTIONBERT, OFFICIAL_3DPW, PROTOCOLS, WHAM, Protocol

FPS = 30.0
GOLDEN = Path(__file__).parent / "golden"
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)


def _sequence(num_frames: int, seed: int) -> PosedPoints:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(num_frames, *shape, generator=generator, dtype=torch.float64)

    return PosedPoints(normal(17, 3), normal(50, 3), normal(24, 3), normal(3))


def _everywhere(points: PosedPoints, change) -> PosedPoints:
    return PosedPoints(*(change(getattr(points, field.name)) for field in fields(PosedPoints)))


def _with_joints(points: PosedPoints, offset: torch.Tensor) -> PosedPoints:
    return PosedPoints(
        points.joints_m + offset,
        points.vertices_m,
        points.smpl_joints_m,
        points.pelvis_of_posed_vertices_m,
    )


def _errors(protocol: Protocol, predicted: PosedPoints, true: PosedPoints, **options) -> MeshErrors:
    metrics = MeshMetrics(protocol)
    metrics.update(compare(protocol, predicted, true), FPS, **options)
    return metrics.errors()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_reference_implementation_gives_the_same(name: str) -> None:
    """To 1e-3 mm, on the same arrays. 3dpw-eval integrates its curve numerically, to 5e-4 %."""
    golden = json.loads((GOLDEN / f"{name}.json").read_text())
    arrays = golden_arrays()
    predicted, true = (
        PosedPoints(
            *map(
                torch.from_numpy,
                (
                    arrays.h36m_regressor @ vertices,
                    vertices,
                    smpl_joints,
                    (arrays.smpl_regressor @ vertices)[:, 0],
                ),
            )
        )
        for vertices, smpl_joints in (
            (arrays.predicted_vertices, arrays.predicted_smpl_joints),
            (arrays.true_vertices, arrays.true_smpl_joints),
        )
    )
    metrics = MeshMetrics(PROTOCOLS[name])
    metrics.update(compare(PROTOCOLS[name], predicted, true), golden.get("fps", FPS))
    found = metrics.errors().as_dict()
    defined = {"mpjpe_mm", "pa_mpjpe_mm"} | ({"mpve_mm"} & golden["values"].keys())
    assert defined == {key for key in found if key.endswith("_mm")}
    for key, value in golden["values"].items():
        tolerance = {"auc_percent": 1e-3, "accel_mm_per_s2": 1e-3 * FPS**2}.get(key, 1e-3)
        assert found[key] == pytest.approx(value, abs=tolerance), key


@each_protocol
def test_truth_as_prediction_has_no_error(protocol: Protocol) -> None:
    found = _errors(protocol, _sequence(6, 0), _sequence(6, 0)).as_dict()
    perfect = {"num_frames": 6, "pck_percent": 100, "auc_percent": 100}
    assert found == {key: pytest.approx(perfect.get(key, 0), abs=1e-9) for key in found}
    assert ("auc_percent" in found) == (protocol is OFFICIAL_3DPW)


@each_protocol
def test_a_shift_of_everything_counts_only_where_nothing_is_aligned(protocol: Protocol) -> None:
    true = _sequence(6, 0)
    shift = torch.tensor([0.006, 0, -0.008], dtype=torch.float64)
    errors = _errors(protocol, _everywhere(true, lambda points: points + shift), true)
    assert errors.mpjpe_mm == pytest.approx(0, abs=1e-9)
    assert errors.pa_mpjpe_mm == pytest.approx(0, abs=1e-9)
    if protocol.vertex_root is None:
        assert math.isnan(errors.mpve_mm)
    else:
        assert errors.mpve_mm == pytest.approx(10 if protocol.name == "vibe" else 0, abs=1e-9)


@each_protocol
def test_five_percent_scale(protocol: Protocol) -> None:
    true = _sequence(4, 1)
    errors = _errors(protocol, _everywhere(true, lambda points: 1.05 * points), true)
    joints = true.smpl_joints_m if protocol is OFFICIAL_3DPW else true.joints_m
    ids = [protocol.skeleton.index(name) for name in protocol.joints]
    lengths = (joints[:, ids] - true.root_m(protocol.joint_root)).norm(dim=-1)
    assert errors.mpjpe_mm == pytest.approx(50 * lengths.mean().item())
    assert errors.pa_mpjpe_mm == pytest.approx(0, abs=1e-6)
    if protocol.vertex_root is not None:
        root = 0 if protocol.vertex_root == "unaligned" else true.root_m(protocol.vertex_root)
        assert errors.mpve_mm == pytest.approx(50 * (true.vertices_m - root).norm(dim=-1).mean().item())
    if protocol.correct is not None:
        limbs = [protocol.skeleton.index(name) for name in protocol.correct.joints]
        assert len(limbs) == 12
        within_a_metre = (lengths[:, limbs] <= 1).double().mean().item()
        assert errors.pck_percent == pytest.approx(100 * within_a_metre)
        curve = [(50 * lengths[:, limbs] <= mm).double().mean().item() for mm in range(200)]
        assert errors.auc_percent == pytest.approx(100 * np.trapezoid(curve) / 199)


def test_protocols_differ_where_their_roots_do() -> None:
    """10 mm between regressed pelvis and hips: counted about the pelvis, invisible about the hips."""
    true = _sequence(6, 0)
    pelvis_alone = torch.zeros(6, 17, 3, dtype=torch.float64)
    pelvis_alone[:, H36M_17.index("pelvis"), 0] = 0.010
    predicted = _with_joints(true, pelvis_alone)
    expected_mm = {
        "spin": (10, None),
        "vibe": (0, 0),
        "wham": (0, 0),
        "motionbert": (10, 10),
        "pose2mesh": (10, 0),
        "3dpw-eval": (0, None),
    }
    for name, (mpjpe_mm, mpve_mm) in expected_mm.items():
        found = _errors(PROTOCOLS[name], predicted, true).as_dict()
        assert found["mpjpe_mm"] == pytest.approx(mpjpe_mm, abs=1e-9)
        assert found.get("mpve_mm") == (None if mpve_mm is None else pytest.approx(mpve_mm, abs=1e-9))
        assert found["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-6)


def test_acceleration_in_both_units() -> None:
    """x = ½ a t² in all joints but the hips: the error is a, in mm/s²; per frame² it is a / fps²."""
    frames = 9
    true = _everywhere(_sequence(frames, 0), torch.zeros_like)
    time_s = torch.arange(frames) / FPS
    joints = torch.zeros(frames, 17, 3)
    joints[..., 0] = 0.5 * 3.0 * time_s[:, None] ** 2
    hips = [H36M_17.index("left_hip"), H36M_17.index("right_hip")]
    joints[:, hips] = 0
    errors = _errors(WHAM, _with_joints(true, joints), true)
    share = 12 / 14  # two of the fourteen joints are the hips
    assert errors.accel_mm_per_s2 == pytest.approx(3000 * share, rel=1e-3)
    assert errors.accel_mm_per_frame2 == pytest.approx(3000 * share / FPS**2, rel=1e-3)


def _jump_at(frame: int, num_frames: int = 9) -> torch.Tensor:
    """All joints but the pelvis a metre off in one frame."""
    offset = torch.zeros(num_frames, 17, 3, dtype=torch.float64)
    offset[frame, 1:, 0] = 1.0
    return offset


def test_accelerations_do_not_span_gaps_or_frames_that_do_not_count() -> None:
    true = _sequence(9, 0)
    predicted = _with_joints(true, _jump_at(4))
    everything = _errors(MOTIONBERT, predicted, true)
    assert everything.accel_mm_per_frame2 == pytest.approx((1000 + 2000 + 1000) / 7)
    # Frame 4 is alone: no acceleration touches it.
    gaps = torch.tensor([0, 1, 2, 3, 7, 10, 11, 12, 13])
    alone = _errors(MOTIONBERT, predicted, true, frame_ids=gaps)
    assert alone.accel_mm_per_frame2 == pytest.approx(0, abs=1e-9)
    assert alone.mpjpe_mm == pytest.approx(1000 / 9)
    counted = torch.arange(9) != 4
    left_out = _errors(MOTIONBERT, predicted, true, is_counted=counted)
    assert left_out.accel_mm_per_frame2 == pytest.approx(0, abs=1e-9)
    assert left_out.mpjpe_mm == pytest.approx(0, abs=1e-9)
    assert left_out.num_frames == 8


def test_wham_leaves_out_the_first_and_the_last_acceleration() -> None:
    true = _sequence(9, 0)
    head_alone = torch.zeros(9, 17, 3, dtype=torch.float64)
    head_alone[0, H36M_17.index("head"), 0] = 1.0  # reaches the first acceleration alone
    predicted = _with_joints(true, head_alone)
    assert _errors(WHAM, predicted, true).accel_mm_per_frame2 == pytest.approx(0, abs=1e-9)
    assert _errors(PROTOCOLS["vibe"], predicted, true).accel_mm_per_frame2 == pytest.approx(1000 / 14 / 7)


def test_frames_count_equally_across_sequences_and_processes() -> None:
    together, parts = MeshMetrics(MOTIONBERT), []
    for frames, error_m in ((2, 0.01), (6, 0.03)):
        true = _sequence(frames, frames)
        offset = torch.zeros(frames, 17, 3, dtype=torch.float64)
        offset[:, 1:, 0] = error_m
        errors = compare(MOTIONBERT, _with_joints(true, offset), true)
        parts.append(MeshMetrics(MOTIONBERT))
        for metrics in (together, parts[-1]):
            metrics.update(errors, FPS)
    assert together.errors().mpjpe_mm == pytest.approx((2 * 10 + 6 * 30) / 8)
    assert together.errors().num_frames == 8
    merged = MeshMetrics(MOTIONBERT)
    for part in parts:
        merged.merge(part)
    assert merged.errors().as_dict() == together.errors().as_dict()


def test_pieces_of_a_sequence_are_one() -> None:
    predicted, true = _sequence(7, 0), _sequence(7, 1)
    pieces = [
        compare(
            WHAM,
            *(_everywhere(points, lambda values, part=part: values[part]) for points in (predicted, true)),
        )
        for part in (slice(0, 3), slice(3, 7))
    ]
    metrics = MeshMetrics(WHAM)
    metrics.update(FrameErrors.cat(pieces), FPS)
    assert metrics.errors().as_dict() == pytest.approx(_errors(WHAM, predicted, true).as_dict())


def test_short_sequences_have_no_acceleration() -> None:
    errors = _errors(WHAM, _sequence(2, 0), _sequence(2, 1))
    assert math.isnan(errors.accel_mm_per_s2)
    assert "accel_mm_per_s2" not in errors.as_dict()


def test_similarity_alignment_undoes_a_similarity_but_never_reflects() -> None:
    true = torch.randn(5, 14, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    R = rotvec_to_rotmat(torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    moved = 1.7 * true @ R.transpose(-1, -2) + torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(similarity_aligned(moved, true), true)
    mirrored = true * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
    assert (similarity_aligned(mirrored, true) - true).norm(dim=-1).mean() > 0.1


def test_points_that_coincide_are_aligned_by_their_mean() -> None:
    true = torch.randn(3, 14, 3, generator=torch.Generator().manual_seed(0))
    points = torch.stack((torch.ones(14, 3), true[1], torch.full((14, 3), math.nan)))
    aligned = similarity_aligned(points, true)
    torch.testing.assert_close(aligned[0], true[0].mean(dim=0).expand(14, 3))
    torch.testing.assert_close(aligned[1], true[1])
    assert aligned[2].isnan().all()


def test_predictions_that_are_not_finite_are_refused() -> None:
    predicted = _sequence(4, 0)
    predicted.joints_m[2] = predicted.smpl_joints_m[2] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        _errors(WHAM, predicted, _sequence(4, 1))


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
