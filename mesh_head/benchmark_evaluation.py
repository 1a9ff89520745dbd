"""Predictions against recorded people: 2D keypoints in, errors under several protocols out.

One sequence at a time, some frames at a time: of a whole set only sums are ever held. Sequences may be shared
out to several processes; each is summed by itself, and the sums are added in the order of the files, so totals
are exact and do not depend on who counted.
"""

import multiprocessing
import pickle
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from body_models.joint_regressors import JointRegressor
from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody
from core.datasets.lifting_sequences import PreparedLifting
from core.datasets.mesh_sequences import Gender, MeshSequence, find_mesh_sequences, read_mesh_sequence
from core.keypoints.track import Track
from core.rotations import rotvec_to_rotmat
from core.skeleton import H36M_17
from mesh_head.evaluation import EvaluationResult
from mesh_head.metrics import MM_PER_M, FrameErrors, MeasuredBody, MeshMetrics, compare
from mesh_head.predictor import recover_at_rate
from mesh_head.protocols import Protocol, require_own_body

# Vertices of this many frames are in memory at a time, of the prediction and of one or two true bodies.
_FRAMES_AT_ONCE = 128

Recovery = Callable[[MeshSequence, torch.device], BodyParameters]


@dataclass(frozen=True, kw_only=True)
class PreparedMeshData:
    """Recorded sequences as tools/prepare_data.py leaves them.

    Attributes:
        dataset: what prepare_data calls the set.
        root: the folder it was prepared into; None: not said yet.
    """

    dataset: str
    root: str | None

    def files(self, split: str) -> list[Path]:
        """The sequences of a split.

        Raises:
            ValueError: there are none, and the sentence has the command that makes them; or they are of another
                set.
        """
        prepare = f"python tools/prepare_data.py dataset={self.dataset}"
        if self.root is None:
            raise ValueError(
                f"Say where the prepared {self.dataset} lies, data.root=FOLDER: what "
                f"`{prepare} root=ARCHIVE out=FOLDER` wrote."
            )
        root = Path(self.root)
        if not any((root / split).glob("*.npz")):
            originals = [folder for folder in (root, root.parent) if (folder / "sequenceFiles").is_dir()]
            if originals or any(root.glob("*.pkl")) or any(root.glob("*/*.pkl")):
                archive = originals[0] if originals else root
                raise ValueError(
                    f"{root} holds {self.dataset} as its owners distribute it, which has to be prepared once: "
                    f"run `{prepare} root={archive} out=FOLDER` and say data.root=FOLDER."
                )
        files = find_mesh_sequences(root, split)
        for path in files:
            found = read_mesh_sequence(path).dataset
            if found != self.dataset:
                raise ValueError(
                    f"{path} is of the set {found}, not of {self.dataset}; name the folder that `{prepare}` wrote "
                    "with data.root=FOLDER."
                )
        return files


def recorded_files(data: object, split: str) -> list[Path] | None:
    """The sequences of a split of recorded people; None where `data` is motion.

    Raises:
        ValueError: there are none, or `data` holds no bodies at all.
    """
    if isinstance(data, PreparedLifting):
        raise ValueError(
            "data=prepared_lifting holds joints without bodies, which tools/eval_mesh.py cannot compare; run "
            "tools/eval_pose.py clips=prepared data=prepared_lifting data.root=FOLDER."
        )
    return data.files(split) if isinstance(data, PreparedMeshData) else None


@dataclass(frozen=True, kw_only=True)
class ModelRecovery:
    """A trained model, run over the keypoints of a sequence.

    Attributes:
        model: normalised keypoints (B, T, J, 3) to `BodyParameters` in the crop frame.
        window_frames: clip length the model is run with.
        fps: frame rate that it was trained at; sequences are brought to that, as in prediction. None: it sees the
            frames as they are.
    """

    model: nn.Module
    window_frames: int
    fps: float | None = None

    def __call__(self, sequence: MeshSequence, device: torch.device) -> BodyParameters:
        """Parameters of the sequence's frames in the camera frame; gaps are bridged, not closed."""
        track = Track(
            person_id=sequence.name,
            skeleton=H36M_17,
            frame_ids=sequence.frame_ids,
            keypoints_px=sequence.keypoints_px,
            confidence=sequence.confidence,
            fps=sequence.fps,
        ).dense()
        keypoints_px, confidence, K = (
            torch.as_tensor(array, dtype=torch.float32, device=device)
            for array in (track.keypoints_px, track.confidence, sequence.K)
        )
        model = self.model.to(device)
        parameters = recover_at_rate(
            model,
            keypoints_px,
            confidence,
            K,
            window_frames=self.window_frames,
            rate_factor=1.0 if self.fps is None else sequence.fps / self.fps,
        )
        recorded = torch.from_numpy(sequence.frame_ids - sequence.frame_ids[0]).to(device)
        return parameters.select(recorded)


@dataclass(frozen=True)
class WorstFrame:
    """The frame of a sequence with the largest error, and all it takes to draw it."""

    title: str
    error_mm: float
    keypoints_px: Float[Tensor, "17 2"]
    confidence: Float[Tensor, "17"]
    predicted: BodyParameters  # batch shape (1,)
    true: BodyParameters
    true_gender: Gender


@dataclass(frozen=True)
class SequenceErrors:
    """What is left of a sequence: sums by protocol name, and its worst frame, if any counts."""

    name: str
    metrics: dict[str, MeshMetrics]
    worst: WorstFrame | None


class BenchmarkEvaluator:
    """Compares recovered bodies with true ones under every protocol; can be sent to other processes.

    Predictions are of the neutral body, without translation; the truth is of the body that a protocol asks for.
    """

    def __init__(
        self,
        recover: Recovery,
        load_body: Callable[..., SmplBody],
        regressor: JointRegressor,
        protocols: Sequence[Protocol],
        device: torch.device,
    ) -> None:
        """
        Args:
            recover: a sequence to its parameters in the camera frame, batch shape (T,), on the device.
            load_body: called with `gender=`, once for each that is needed.
            regressor: H36M_17, of all genders' vertices.
        """
        self.recover = recover
        self.load_body = load_body
        self.regressor = regressor
        self.protocols = tuple(protocols)
        self.device = device
        self._bodies: dict[Gender, MeasuredBody] = {}

    def body(self, gender: Gender) -> MeasuredBody:
        """The body of that gender, read when first asked for.

        Raises:
            ValueError: it is the neutral one under another name.
        """
        if gender not in self._bodies:
            body = self.load_body(gender=gender)
            neutral = body if gender == "neutral" else self.body("neutral").body
            if body is not neutral and np.array_equal(body.arrays.v_template, neutral.arrays.v_template):
                raise ValueError(
                    f"The body model gives one and the same body for neutral and {gender}: say "
                    "body_model.path=FOLDER with the neutral, male and female models, or use protocols whose "
                    "ground truth is neutral (vibe, motionbert)."
                )
            self._bodies[gender] = MeasuredBody(body, self.regressor, neutral).to(self.device)
        return self._bodies[gender]

    @torch.no_grad()
    def evaluate(self, sequence: MeshSequence) -> SequenceErrors:
        """Errors of one sequence.

        Raises:
            ValueError: it has no body to compare with, or none of the gender that a protocol asks for.
        """
        if sequence.poses_rotvec is not None:
            require_own_body(self.protocols, sequence.gender, f"{sequence.name} of {sequence.dataset}")
        predicted = self.recover(sequence, self.device)
        true = true_parameters(sequence, self.device)
        gender_of: dict[str, Gender] = {"gendered": sequence.gender, "neutral": "neutral"}
        pieces: dict[str, list[FrameErrors]] = {protocol.name: [] for protocol in self.protocols}
        for frames in torch.arange(sequence.num_frames, device=self.device).split(_FRAMES_AT_ONCE):
            predicted_points = self.body("neutral")(predicted.select(frames))
            true_points = {
                gender: self.body(gender)(true.select(frames))
                for gender in {gender_of[protocol.true_body] for protocol in self.protocols}
            }
            for protocol in self.protocols:
                truth = true_points[gender_of[protocol.true_body]]
                pieces[protocol.name].append(compare(protocol, predicted_points, truth))

        frame_ids = torch.from_numpy(sequence.frame_ids)
        metrics = {}
        for protocol in self.protocols:
            metrics[protocol.name] = MeshMetrics(protocol)
            metrics[protocol.name].update(
                FrameErrors.cat(pieces[protocol.name]), sequence.fps, frame_ids, _counted(protocol, sequence)
            )
        first = self.protocols[0]
        errors = FrameErrors.cat(pieces[first.name])
        per_frame_m = (errors.mpjpe_m if errors.mpve_m is None else errors.mpve_m).cpu()
        counted = _counted(first, sequence)
        if not bool(counted.any()):
            return SequenceErrors(sequence.name, metrics, None)
        index = int(torch.where(counted, per_frame_m, -1).argmax())
        worst = WorstFrame(
            title=f"{sequence.name}\nframe {sequence.frame_ids[index]}",
            error_mm=per_frame_m[index].item() * MM_PER_M,
            keypoints_px=torch.from_numpy(sequence.keypoints_px[index]).float(),
            confidence=torch.from_numpy(sequence.confidence[index]).float(),
            predicted=predicted.select(torch.tensor([index], device=self.device)).to("cpu"),
            true=true.select(torch.tensor([index], device=self.device)).to("cpu"),
            true_gender=gender_of[first.true_body],
        )
        return SequenceErrors(sequence.name, metrics, worst)


def true_parameters(sequence: MeshSequence, device: torch.device) -> BodyParameters:
    """The recorded body in the camera's orientation, untranslated as predictions are; batch shape (T,).

    Raises:
        ValueError: the sequence has no body.
    """
    root_rotmat, _ = sequence.parameters_cam(torch.zeros(3, device=device))
    assert sequence.poses_rotvec is not None
    assert sequence.betas is not None
    betas = sequence.betas[None] if sequence.frame_betas is None else sequence.frame_betas
    body_rotvec = torch.from_numpy(sequence.poses_rotvec[:, 1:]).to(root_rotmat)
    return BodyParameters(
        root_rotmat=root_rotmat,
        body_rotmat=rotvec_to_rotmat(body_rotvec),
        betas=torch.from_numpy(betas).to(root_rotmat),
        translation_m=root_rotmat.new_zeros(sequence.num_frames, 3),
    )


def _counted(protocol: Protocol, sequence: MeshSequence) -> Tensor:
    is_counted = sequence.evaluated if protocol.frames == "evaluated" else np.ones_like(sequence.evaluated)
    return torch.from_numpy(is_counted)


@dataclass(frozen=True)
class BenchmarkResult:
    """Errors in total and by sequence, and the worst frame of every sequence, the worst first."""

    errors: EvaluationResult
    worst: list[WorstFrame]


def evaluate_benchmark(
    evaluator: BenchmarkEvaluator,
    files: Sequence[Path],
    workers: int = 1,
    on_sequence_done: Callable[[], None] = lambda: None,
) -> BenchmarkResult:
    """Errors of all sequences.

    Args:
        files: of `MeshSequence`s.
        workers: processes that share the sequences; 1: this one alone.
        on_sequence_done: called after each file, for progress.

    Raises:
        ValueError: no frame of any of them counts, or one cannot be used; there is no worker.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} is not a positive number of processes.")
    metrics: dict[str, dict[str, MeshMetrics]] = {}
    worst = []
    for sequence in _evaluated(evaluator, files, workers):
        metrics[sequence.name] = sequence.metrics
        worst += [] if sequence.worst is None else [sequence.worst]
        on_sequence_done()
    if not worst:
        raise ValueError(
            f"None of the frames in {files[0].parent} is one that its owners evaluate; prepare the set again."
        )
    worst.sort(key=lambda frame: -frame.error_mm)
    return BenchmarkResult(EvaluationResult.of(metrics), worst)


def _evaluated(
    evaluator: BenchmarkEvaluator, files: Sequence[Path], workers: int
) -> Iterator[SequenceErrors]:
    """In the order of the files."""
    if workers == 1:
        yield from map(partial(_evaluate_file, evaluator), files)
        return
    threads = max(torch.get_num_threads() // workers, 1)
    with ProcessPoolExecutor(
        workers,
        multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        # As bytes, since tensors that processes share need as many open files. They are made here and go through
        # a pipe to this process's own workers, as all that multiprocessing sends; no file is ever opened so.
        initargs=(pickle.dumps(evaluator), threads),
    ) as pool:
        yield from pool.map(_evaluate_in_worker, files)


def _evaluate_file(evaluator: BenchmarkEvaluator, path: Path) -> SequenceErrors:
    return evaluator.evaluate(read_mesh_sequence(path))


_evaluator_of_worker: BenchmarkEvaluator | None = None


def _start_worker(evaluator: bytes, threads: int) -> None:
    global _evaluator_of_worker
    torch.set_num_threads(threads)
    _evaluator_of_worker = pickle.loads(evaluator)


def _evaluate_in_worker(path: Path) -> SequenceErrors:
    assert _evaluator_of_worker is not None
    return _evaluate_file(_evaluator_of_worker, path)
