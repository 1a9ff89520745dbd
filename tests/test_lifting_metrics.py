"""Lifting metrics and whole evaluations against numbers that the reference implementations gave on the same arrays.

tests/golden_lifting/reference_values.json holds what the functions named in it returned, in millimetres and per
cent, on the arrays made here; PCK and AUC are the official MATLAB script, read literally.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from core.datasets.lifting_sequences import LiftingSequence
from core.point_errors import difference_error, mean_point_error, scale_aligned, similarity_aligned
from core.skeleton import H36M_17
from core.ssr_stf.lifting_data import LiftingTestSequence, _test_sequence
from core.ssr_stf.lifting_evaluation import Lifter, LiftingResult, counted_sequences, evaluate_lifting
from core.ssr_stf.lifting_metrics import LiftingMetrics
from core.ssr_stf.lifting_protocols import PCK_JOINTS, PROTOCOLS, find_lifting_protocol

GOLDEN = json.loads((Path(__file__).parent / "golden_lifting" / "reference_values.json").read_text())[
    "values"
]
TOLERANCE_MM = 1e-3
# MPI-INF-3DHP's joints in the order of H36M_17.
MPI_JOINTS = [14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4]


def _sequence(**changes: object) -> LiftingSequence:
    num_frames = len(changes["keypoints_px"])
    settings = {
        "name": "sequence",
        "subject": "S9",
        "action": "Walking",
        "camera": "54138969",
        "confidence": np.ones((num_frames, 17), np.float32),
        "joint_space": "camera_mm",
        "mm_per_px": None,
        "joints_25d_mm": None,
        "image_size": (1000, 1000),
        "K": None,
        "fps": 50.0,
        "valid": np.ones(num_frames, np.bool_),
    }
    return LiftingSequence(**(settings | changes))


def _seen_as(network_joints: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Keypoints that the identity, taken for a network, lifts to the given joints."""
    height, width = size
    return {
        "keypoints_px": (network_joints[..., :2] + [1, height / width]) * width / 2,
        "confidence": network_joints[..., 2],
        "image_size": size,
    }


class _ByPlace(torch.nn.Module):
    """The identity, but that joints grow through the clip, from 0.9 to 1.1 of what they are."""

    def forward(self, keypoints: torch.Tensor) -> torch.Tensor:
        return keypoints * (1 + 0.1 * torch.linspace(-1, 1, keypoints.shape[1]))[:, None, None]


def _evaluate(
    sequences: list[LiftingSequence],
    protocol: str,
    windows: str,
    window_frames: int,
    model: torch.nn.Module | None = None,
) -> LiftingResult:
    lifter = Lifter(
        model=torch.nn.Identity() if model is None else model,
        normalisation="screen",
        window_frames=window_frames,
        mirror_test=True,
        device=torch.device("cpu"),
    )
    declared = find_lifting_protocol(protocol).with_windows(windows)
    return evaluate_lifting(lifter, [_test_sequence(each) for each in sequences], declared)


def test_functions_equal_the_references() -> None:
    rng = np.random.default_rng(7)
    true_mm = rng.normal(scale=300.0, size=(40, 17, 3))
    predicted_mm = 0.9 * true_mm + rng.normal(scale=60.0, size=true_mm.shape)
    predicted_mm[5] *= [-1.0, 1.0, 1.0]  # reflections are excluded
    both = [torch.from_numpy(array - array[:, :1]) for array in (predicted_mm, true_mm)]
    ours = {
        "mpjpe": mean_point_error(*both).mean(),
        "p_mpjpe": mean_point_error(similarity_aligned(*both), both[1]).mean(),
        "n_mpjpe": mean_point_error(scale_aligned(*both), both[1]).mean(),
        "loss_velocity": difference_error(*both, order=1).mean(),
        "acc_error": difference_error(*both, order=2).mean(),
    }
    ours["mpjpe_cal"] = ours["mpjpe"]
    for source in ("MotionAGFormer loss/pose3d.py", "MotionBERT lib/model/loss.py", "P-STMO common/utils.py"):
        for name, value in GOLDEN[source].items():
            assert float(ours[name]) == pytest.approx(value, abs=TOLERANCE_MM), (source, name)

    metrics = LiftingMetrics(PROTOCOLS["motion"])
    metrics.update(*both, action="", fps=50.0, evaluated=torch.ones(40, dtype=torch.bool))
    errors = metrics.errors()
    assert errors.mpjpe_mm == pytest.approx(float(ours["mpjpe"]))
    assert errors.pa_mpjpe_mm == pytest.approx(float(ours["p_mpjpe"]))
    assert errors.n_mpjpe_mm == pytest.approx(float(ours["n_mpjpe"]))
    assert errors.velocity_mm_per_frame == pytest.approx(float(ours["loss_velocity"]))
    assert errors.accel_mm_per_s2 == pytest.approx(2500 * errors.accel_mm_per_frame2)


class _JumpingLifter(Lifter):
    """Exact, but that all joints move by 6 mm at step 3 and by 3 mm at step 6, to frames 4 and 7."""

    def joints_mm(self, sequence: LiftingTestSequence, *_: object, **__: object) -> torch.Tensor:
        joints = torch.from_numpy(sequence.true_joints_mm).clone()
        joints[4:, 1:] += torch.tensor([6.0, 0.0, 0.0])
        joints[7:, 1:] += torch.tensor([0.0, 3.0, 0.0])
        return joints


def _in_windows_of_four(lifter: type[Lifter]) -> Lifter:
    return lifter(
        model=torch.nn.Identity(),
        normalisation="screen",
        window_frames=4,
        mirror_test=False,
        device=torch.device("cpu"),
    )


_PERSON = {"keypoints_px": np.ones((9, 17, 2), np.float32), "joints": np.ones((9, 17, 3), np.float32)}


class _DivergedLifter(Lifter):
    def joints_mm(self, sequence: LiftingTestSequence, *_: object, **__: object) -> torch.Tensor:
        return torch.full((len(sequence.evaluated), 17, 3), torch.nan)


def test_joints_that_are_not_finite_have_no_errors() -> None:
    lifter = _in_windows_of_four(_DivergedLifter)
    sequences = [_test_sequence(_sequence(**_PERSON, name="a"))]
    result = evaluate_lifting(lifter, sequences, PROTOCOLS["motion"])
    with pytest.raises(ValueError, match=r"joints of a are not finite.*training has diverged"):
        result.require_errors()


def test_sequences_that_do_not_count_are_not_validated_on() -> None:
    listed = "s_09_act_05_subact_02_ca_01"  # on Human3.6M's block list
    sequences = [
        _test_sequence(_sequence(**_PERSON, name=name, valid=np.full(9, valid)))
        for name, valid in (
            (listed, True),
            ("s_11_act_02_subact_01_ca_01", False),
            ("s_11_act_03_ca_01", True),
        )
    ]
    protocol = find_lifting_protocol("human36m")
    assert [sequence.name for sequence in counted_sequences(sequences, protocol)] == ["s_11_act_03_ca_01"]
    with pytest.raises(ValueError, match="none of them valid"):
        counted_sequences(sequences[1:2], protocol)
    with pytest.raises(ValueError, match="leaves out all 1 sequences"):
        counted_sequences(sequences[:1], protocol)


@pytest.mark.parametrize(("windows", "left_out"), [("tiled", None), ("tiled", 3), ("centre", None)])
def test_seams_are_velocity_errors_where_windows_begin_or_end(windows: str, left_out: int | None) -> None:
    rng = np.random.default_rng(3)
    evaluated = np.ones(9, bool)
    if left_out is not None:
        evaluated[left_out] = False
    sequence = LiftingTestSequence(
        name="a",
        action="",
        fps=30.0,
        keypoints_px=rng.normal(size=(9, 17, 2)).astype(np.float32),
        confidence=np.ones((9, 17), np.float32),
        image_size=(100, 100),
        K=None,
        true_joints_mm=rng.normal(scale=300.0, size=(9, 17, 3)).astype(np.float32),
        mm_per_unit=np.ones(9, np.float32),
        evaluated=evaluated,
    )
    lifter = _in_windows_of_four(_JumpingLifter)
    result = evaluate_lifting(lifter, [sequence] * 2, PROTOCOLS["motion"].with_windows(windows))
    if windows == "centre":
        assert result.seams is None
        assert result.report()["seams"] is None
        return
    # Windows 0-3, 4-7 and, alone, 8: borders at the steps to frames 4 and 8. The pelvis counts, and never errs.
    jump = 16 / 17
    assert result.seams is not None
    assert result.seams.border_mm_per_frame == pytest.approx(
        jump * 6 / 2 if left_out is None else 0, abs=1e-4
    )
    assert result.seams.elsewhere_mm_per_frame == pytest.approx(
        jump * 3 / (6 if left_out is None else 5), abs=1e-4
    )
    assert result.report()["seams"]["border_mm_per_frame"] == result.seams.border_mm_per_frame


def _of_human36m(
    rng: np.random.Generator, name: str, action: str, size: tuple[int, int], noise: np.ndarray
) -> LiftingSequence:
    """In MotionBERT's space, with what a network of so much noise in each frame makes of it."""
    num_frames = len(noise)
    true_mm = rng.normal(scale=300.0, size=(num_frames, 17, 3))
    mm_per_px = rng.uniform(3.5, 4.5, size=num_frames)
    network = (true_mm - true_mm[:, :1]) / mm_per_px[:, None, None] / 500
    network += noise[:, None, None] * rng.normal(size=true_mm.shape)
    return _sequence(
        name=name,
        action=action,
        joints=true_mm / mm_per_px[:, None, None],
        joint_space="image_25d",
        mm_per_px=mm_per_px,
        joints_25d_mm=true_mm,
        **_seen_as(network, size),
    )


def test_human36m_evaluation_equals_the_reference() -> None:
    """2.5D factor, block list, tiled windows, mean of the actions' means; the network's pelvis does not count."""
    rng = np.random.default_rng(11)
    sequences = []
    for name, action, size, num_frames in (
        ("s_09_act_02_subact_01_ca_01", "Directions", (1002, 1000), 27),
        ("s_11_act_02_subact_02_ca_04", "Directions", (1002, 1000), 27),
        ("s_11_act_05_subact_01_ca_02", "Greeting", (1000, 1000), 54),
        ("s_09_act_05_subact_02_ca_03", "Greeting", (1000, 1000), 54),
    ):
        sequences.append(_of_human36m(rng, name, action, size, np.full(num_frames, 0.03)))
    result = _evaluate(sequences, "human36m", "tiled", 27)
    golden = GOLDEN["MotionAGFormer train.py evaluate"]
    assert result.total.mpjpe_mm == pytest.approx(golden["p1"], abs=TOLERANCE_MM)
    assert result.total.pa_mpjpe_mm == pytest.approx(golden["p2"], abs=TOLERANCE_MM)
    assert list(result.per_action) == ["Directions", "Greeting"]
    assert result.total.num_frames == 108


def test_human36m_frames_after_the_last_whole_window_count_as_in_the_reference() -> None:
    """`split_clips` drops them where a sequence has a whole window, and lifts each window by itself.

    Errors grow with time here, and with the place in the window, so both show.
    """
    rng = np.random.default_rng(17)
    sequences = []
    for name, action, num_frames in (
        ("s_09_act_02_subact_01_ca_01", "Directions", 60),
        ("s_11_act_02_subact_02_ca_04", "Directions", 47),
        ("s_11_act_05_subact_01_ca_02", "Greeting", 27),
        ("s_11_act_05_subact_01_ca_03", "Greeting", 80),
    ):
        noise = np.linspace(0.03, 0.09, num_frames)
        sequences.append(_of_human36m(rng, name, action, (1000, 1000), noise))
    golden = GOLDEN["MotionAGFormer split_clips, longer sequences"]
    tiled = _evaluate(sequences, "human36m", "tiled", 27, _ByPlace())
    assert tiled.total.mpjpe_mm == pytest.approx(golden["p1"], abs=TOLERANCE_MM)
    assert tiled.total.pa_mpjpe_mm == pytest.approx(golden["p2"], abs=TOLERANCE_MM)
    assert tiled.total.num_frames == golden["frames"]
    assert "whole tiled windows" in tiled.report()["definition"]
    assert _evaluate(sequences, "human36m", "auto", 27).total.num_frames == 214


def test_3dhp_evaluation_equals_the_reference() -> None:
    """Valid frames, centre-frame windows, PCK and AUC of 14 joints."""
    rng = np.random.default_rng(13)
    sequences = []
    for name, num_frames, size in (("TS1", 40, (2048, 2048)), ("TS5", 30, (1080, 1920))):
        true_mm = rng.normal(scale=300.0, size=(num_frames, 17, 3))
        predicted_mm = true_mm - true_mm[:, 14:15] + rng.normal(scale=60.0, size=true_mm.shape)
        valid = rng.random(num_frames) < 0.7
        sequences.append(
            _sequence(
                name=name,
                joints=true_mm[:, MPI_JOINTS],
                valid=valid,
                **_seen_as(predicted_mm[:, MPI_JOINTS] / 1000, size),
            )
        )
    result = _evaluate(sequences, "mpi_inf_3dhp", "auto", 9)
    golden = GOLDEN["MotionAGFormer train_3dhp.py evaluate"]
    assert result.total.num_frames == golden["frames"]
    assert result.total.mpjpe_mm == pytest.approx(golden["mpjpe"], abs=TOLERANCE_MM)
    official = GOLDEN["P-STMO 3dhp_test mpii_compute_3d_pck.m"]
    assert result.total.pck_percent == pytest.approx(official["pck"], abs=1e-3)
    assert result.total.auc_percent == pytest.approx(official["auc"], abs=1e-3)
    assert {"pck_percent", "auc_percent"} <= result.report()["total"].keys()


def test_actions_count_equally_whatever_their_length() -> None:
    true_mm = torch.zeros(6, 17, 3)
    off_mm = torch.zeros(6, 17, 3)
    off_mm[:, 1:, 0] = 17.0  # 16 mm on average, the pelvis being right
    metrics = LiftingMetrics(PROTOCOLS["human36m"])
    everything = torch.ones(6, dtype=torch.bool)
    metrics.update(off_mm, true_mm, action="Walking", fps=50.0, evaluated=everything)
    metrics.update(true_mm[:2], true_mm[:2], action="Photo", fps=50.0, evaluated=everything[:2])
    metrics.update(off_mm, true_mm, action="Walking", fps=50.0, evaluated=everything)
    assert list(metrics.per_action()) == ["Photo", "Walking"]
    assert metrics.errors().mpjpe_mm == pytest.approx(8.0)
    assert metrics.errors().num_frames == 14


def test_an_action_that_is_not_finite_counts() -> None:
    """Else a model that diverges on some actions would be judged by the others. One frame has no velocity."""
    true_mm = torch.zeros(6, 17, 3)
    metrics = LiftingMetrics(PROTOCOLS["human36m"])
    everything = torch.ones(6, dtype=torch.bool)
    off_mm = torch.zeros(6, 17, 3)
    off_mm[::2, 1:] = 1.0
    metrics.update(off_mm, true_mm, action="Walking", fps=50.0, evaluated=everything)
    velocity = metrics.errors().velocity_mm_per_frame
    metrics.update(true_mm[:1], true_mm[:1], action="Photo", fps=50.0, evaluated=everything[:1])
    assert metrics.errors().velocity_mm_per_frame == velocity > 0
    metrics.update(true_mm * math.nan, true_mm, action="Sitting", fps=50.0, evaluated=everything)
    assert math.isnan(metrics.errors().mpjpe_mm)


def test_velocities_do_not_cross_frames_that_are_left_out() -> None:
    true_mm = torch.zeros(5, 17, 3)
    jumping_mm = torch.zeros(5, 17, 3)
    jumping_mm[2:, 1:] = 1000.0
    metrics = LiftingMetrics(PROTOCOLS["motion"])
    evaluated = torch.tensor([True, True, False, True, True])
    metrics.update(jumping_mm, true_mm, action="", fps=30.0, evaluated=evaluated)
    assert metrics.errors().velocity_mm_per_frame == 0
    assert np.isnan(metrics.errors().accel_mm_per_frame2)


def test_protocols_describe_themselves() -> None:
    assert len(PCK_JOINTS) == 14 == len({H36M_17.index(name) for name in PCK_JOINTS})
    assert all(protocol.name in protocol.describe() for protocol in PROTOCOLS.values())
    with pytest.raises(ValueError, match="choose one of human36m"):
        find_lifting_protocol("humaneva")
    with pytest.raises(ValueError, match="choose one of auto, overlapped, tiled, centre"):
        PROTOCOLS["motion"].with_windows("none")
    blocked = _sequence(
        name="s_09_act_13_subact_01_ca_01",
        joints=np.zeros((9, 17, 3)),
        **_seen_as(np.ones((9, 17, 3)), (9, 9)),
    )
    with pytest.raises(ValueError, match="leaves out all 1"):
        _evaluate([blocked], "human36m", "auto", 9)


def test_data_in_which_no_frame_counts_are_refused() -> None:
    joints = np.random.default_rng(3).normal(size=(9, 17, 3))
    sequence = _sequence(joints=1000 * joints, valid=np.zeros(9, np.bool_), **_seen_as(joints, (1000, 1000)))
    with pytest.raises(
        ValueError, match="No frame of the 1 sequences counts: the data call none of them valid"
    ):
        _evaluate([sequence], "mpi_inf_3dhp", "auto", 3)
