"""Evaluation on recorded people with bodies of SMPL's size: person-frames per second, and memory for all of 3DPW.

Bodies are random: 6,890 vertices, dense pose blend shapes, four joints per vertex. Predictions are the truth,
turned a little, so that everything but the network is timed: reading, posing the prediction and the gendered
truth, joints, errors. The reference holds whole sequences, as published evaluation code does: smplx poses them,
and PA-MPJPE is a loop over frames.
"""

import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import BenchRow, time_side_by_side
from body_models.joint_regressors import JointRegressor
from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody
from body_models.smplx_bridge import SmplxBody
from core.datasets.mesh_sequences import MeshSequence, write_mesh_sequence
from core.point_errors import similarity_aligned
from core.rotations import rotvec_to_rotmat
from core.skeleton import H36M_17
from mesh_head.benchmark_evaluation import BenchmarkEvaluator, evaluate_benchmark, true_parameters
from mesh_head.protocols import PROTOCOLS, WHAM, find_protocols

NUM_VERTICES, NUM_FACES = 6_890, 13_776
FRAMES_OF_3DPW_TEST, PEOPLE_OF_3DPW_TEST = 35_515, 37
FRAMES_OF_A_SEQUENCE = 256
_SEEDS = {"neutral": 0, "male": 1, "female": 2}


class TurnedTruth:
    """The truth with every joint turned by a tenth of a radian."""

    def __call__(self, sequence: MeshSequence, device: torch.device) -> BodyParameters:
        true = true_parameters(sequence, device)
        turn = rotvec_to_rotmat(torch.tensor([0.1, 0.0, 0.0], device=device))
        return replace(true, root_rotmat=true.root_rotmat @ turn, body_rotmat=true.body_rotmat @ turn)


def run(threads: int) -> list[BenchRow]:
    """Times a set of 3DPW's size, shared by as many processes as threads, then single sequences; metres.

    Raises:
        ValueError: the package smplx is not installed.
    """
    reference = NaiveEvaluator()
    rows = [_row_of_a_whole_set(threads)]
    sequence = _sequence(FRAMES_OF_A_SEQUENCE, seed=0)
    wham, all_six = (_evaluator(names) for names in ("wham", list(PROTOCOLS)))
    for case, evaluator, name, compared in (
        ("protocol wham", wham, "smplx, whole arrays", partial(reference.mpve_mm, sequence)),
        ("six protocols", all_six, "protocol wham alone", partial(_mpve_mm, wham, sequence)),
    ):
        ours = partial(_mpve_mm, evaluator, sequence)
        seconds = time_side_by_side(ours, compared)
        rows.append(_row(case, FRAMES_OF_A_SEQUENCE, seconds, name, abs(ours() - compared()), threads))
    return rows


def _row_of_a_whole_set(threads: int) -> BenchRow:
    """One process first: the largest memory of this one is still its own."""
    lengths = np.diff(np.linspace(0, FRAMES_OF_3DPW_TEST, PEOPLE_OF_3DPW_TEST + 1).astype(int))
    seconds, mpve_mm, peaks_mb = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{index}.npz" for index in range(PEOPLE_OF_3DPW_TEST)]
        for index, file in enumerate(files):
            write_mesh_sequence(file, _sequence(int(lengths[index]), seed=index))
        for workers in (1, threads):
            before_s = time.perf_counter()
            result = evaluate_benchmark(_evaluator("wham"), files, workers=workers)
            seconds.append(time.perf_counter() - before_s)
            mpve_mm.append(result.errors.total["wham"].mpve_mm)
            peaks_mb.append(_peak_memory_mb(of_children=workers > 1))
    case = f"3DPW's test set, {threads} processes of {peaks_mb[1]} MB"
    name = f"one process, {peaks_mb[0]} MB"
    difference_mm = abs(mpve_mm[0] - mpve_mm[1])
    return _row(case, FRAMES_OF_3DPW_TEST, (seconds[1], seconds[0]), name, difference_mm, threads)


def _row(
    case: str,
    num_frames: int,
    seconds: tuple[float, float],
    reference: str,
    difference_mm: float,
    threads: int,
) -> BenchRow:
    ours_s, reference_s = seconds
    return BenchRow(
        case=f"{case}: {num_frames / ours_s:,.0f} frames/s",
        ours_s=ours_s,
        reference=reference,
        reference_s=reference_s,
        max_abs_diff=difference_mm / 1000,
        sizes={"num_vertices": NUM_VERTICES, "person_frames": num_frames},
        dtype="float32",
        threads=threads,
    )


def _peak_memory_mb(*, of_children: bool) -> str:
    try:
        import resource
    except ImportError:  # Windows
        return "?"
    peak = resource.getrusage(resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF).ru_maxrss
    return str(round(peak / (2**20 if sys.platform == "darwin" else 2**10)))


class NaiveEvaluator:
    """Protocol wham on whole arrays, as usually written down."""

    def __init__(self) -> None:
        self.bodies = {gender: SmplxBody(load_random_body(gender).arrays) for gender in ("neutral", "female")}
        self.regressor = _regressor_weights()

    @torch.no_grad()
    def mpve_mm(self, sequence: MeshSequence) -> float:
        device = torch.device("cpu")
        parameters = {"neutral": TurnedTruth()(sequence, device), "female": true_parameters(sequence, device)}
        vertices, joints = [], []
        for gender, body in self.bodies.items():
            vertices_m = body(parameters[gender]).vertices_m
            joints_m = torch.matmul(self.regressor, vertices_m)
            root_m = joints_m[:, [H36M_17.index("left_hip"), H36M_17.index("right_hip")]].mean(
                1, keepdim=True
            )
            vertices.append(vertices_m - root_m)
            joints.append((joints_m - root_m)[:, [H36M_17.index(name) for name in WHAM.joints]])
        joints[0].sub(joints[1]).norm(dim=-1).mean(dim=-1).mean()
        for predicted, true in zip(*joints, strict=True):
            similarity_aligned(predicted[None], true[None]).sub(true).norm(dim=-1).mean()
        return 1000 * (vertices[0] - vertices[1]).norm(dim=-1).mean().item()


def _mpve_mm(evaluator: BenchmarkEvaluator, sequence: MeshSequence) -> float:
    return evaluator.evaluate(sequence).metrics["wham"].errors().mpve_mm


def load_random_body(gender: str = "neutral") -> SmplBody:
    """A body of SMPL's size whose vertices follow joints as SMPL's do, in number."""
    rng = np.random.default_rng(_SEEDS[gender])
    weights = np.zeros((NUM_VERTICES, 24))
    np.put_along_axis(weights, rng.integers(24, size=(NUM_VERTICES, 4)), 0.25, axis=1)
    parents = [2**32 - 1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
    return SmplBody.from_arrays(
        {
            "v_template": rng.normal(scale=0.3, size=(NUM_VERTICES, 3)),
            "shapedirs": rng.normal(scale=0.01, size=(NUM_VERTICES, 3, 10)),
            "posedirs": rng.normal(scale=0.002, size=(NUM_VERTICES, 3, 207)),
            "weights": weights / weights.sum(axis=1, keepdims=True),
            "J_regressor": _sparse_rows(24, rng),
            "f": rng.integers(NUM_VERTICES, size=(NUM_FACES, 3)),
            "kintree_table": np.array([parents, range(24)]),
        }
    )


def _sparse_rows(num_joints: int, rng: np.random.Generator) -> np.ndarray:
    rows = np.zeros((num_joints, NUM_VERTICES))
    np.put_along_axis(rows, rng.integers(NUM_VERTICES, size=(num_joints, 20)), 1.0, axis=1)
    return rows / rows.sum(axis=1, keepdims=True)


def _regressor_weights() -> Tensor:
    return torch.from_numpy(_sparse_rows(17, np.random.default_rng(0))).float()


def _evaluator(protocols: str | list[str]) -> BenchmarkEvaluator:
    return BenchmarkEvaluator(
        recover=TurnedTruth(),
        load_body=load_random_body,
        regressor=JointRegressor(H36M_17, _regressor_weights()),
        protocols=find_protocols(protocols),
        device=torch.device("cpu"),
    )


def _sequence(num_frames: int, seed: int) -> MeshSequence:
    rng = np.random.default_rng(seed)
    return MeshSequence(
        name=f"person_{seed}",
        dataset="random",
        gender="male" if seed % 2 else "female",
        frame_ids=np.arange(num_frames),
        fps=30.0,
        image_size=(1920, 1080),
        K=np.array([[1961.0, 0.0, 540.0], [0.0, 1969.0, 960.0], [0.0, 0.0, 1.0]]),
        keypoints_px=rng.normal(size=(num_frames, 17, 2)),
        confidence=np.ones((num_frames, 17)),
        poses_rotvec=rng.normal(scale=0.3, size=(num_frames, 24, 3)),
        translation_world_m=None,
        R_cam_world=np.tile(np.eye(3), (num_frames, 1, 1)),
        t_cam_world_m=np.zeros((num_frames, 3)),
        betas=rng.normal(size=10),
        joints_cam_m=None,
        evaluated=np.ones(num_frames, bool),
    )
