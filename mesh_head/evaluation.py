"""Predictions against ground truth: motion is put before virtual cameras and recovered from what they saw."""

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from body_models.joint_regressors import JointRegressor
from body_models.smpl import SmplBody
from core.motion.sequence import MotionSequence
from core.random_seeds import seeded_generator
from core.settings import require_number
from mesh_head.metrics import MeasuredBody, MeshErrors, MeshMetrics, compare
from mesh_head.motion_data import ClipSynthesizer, MotionClips, SyntheticClips
from mesh_head.predictor import recover_at_rate
from mesh_head.protocols import Protocol

_CPU = torch.device("cpu")
_SHAPE = 1  # told apart by it: what is drawn for a stretch's shape, and its camera and noise


@dataclass(frozen=True)
class EvaluationResult:
    """Errors by protocol name: in total, and per sequence name."""

    total: dict[str, MeshErrors]
    per_sequence: dict[str, dict[str, MeshErrors]]

    @staticmethod
    def of(by_sequence: Mapping[str, Mapping[str, MeshMetrics]]) -> "EvaluationResult":
        """From the metrics of every sequence by protocol name; totals are their sums, in the order given."""
        totals: dict[str, MeshMetrics] = {}
        for metrics in by_sequence.values():
            for name, metric in metrics.items():
                totals.setdefault(name, MeshMetrics(metric.protocol)).merge(metric)
        return EvaluationResult(
            {name: metric.errors() for name, metric in totals.items()},
            {
                sequence: {name: metric.errors() for name, metric in metrics.items()}
                for sequence, metrics in by_sequence.items()
            },
        )

    def rows(self, protocol: str) -> dict[str, dict[str, float | int]]:
        """What is defined under one protocol, of every sequence and, the last row, in total."""
        of_sequences = {name: errors[protocol].as_dict() for name, errors in self.per_sequence.items()}
        return of_sequences | {"total": self.total[protocol].as_dict()}

    def report(self, protocol: Protocol, baseline: "EvaluationResult | None" = None) -> dict[str, Any]:
        """What is written as JSON: total, baseline and every sequence under one protocol."""
        mean_pose = {"baseline_mean_pose": baseline.total[protocol.name].as_dict()} if baseline else {}
        return {
            "protocol": protocol.name,
            "definition": protocol.describe(),
            "total": self.total[protocol.name].as_dict(),
            **mean_pose,
            "sequences": {
                name: errors[protocol.name].as_dict() for name, errors in self.per_sequence.items()
            },
        }


@dataclass(frozen=True, kw_only=True)
class MotionEvaluation:
    """Motion cut into stretches, each before a still virtual camera of its own.

    Cameras and noise depend on the seed, the sequence's place in the list and the stretch alone, so every
    model sees the same keypoints whatever clip length it works with, and on whatever device: all is drawn on the
    CPU, as a GPU draws other numbers.

    Attributes:
        stretch_frames: frames before one camera; a sequence is cut into equal stretches of at most this many.
        max_stretches: of all of them, only this many, spread evenly, are used; None for all.
        seed: of cameras, noise and shapes.
        betas_std: every stretch is of somebody whose shape is drawn with this standard deviation, limited to three
            of them, as in training; 0: the motion's own, which in files without shapes is everybody's mean one.
    """

    stretch_frames: int
    max_stretches: int | None
    seed: int
    betas_std: float = 0.0

    def __post_init__(self) -> None:
        require_number("evaluation.stretch_frames", self.stretch_frames, least=1, whole=True)
        require_number("evaluation.max_stretches", self.max_stretches, least=1, whole=True, may_be_null=True)
        require_number("evaluation.seed", self.seed, least=0, whole=True)
        require_number("evaluation.betas_std", self.betas_std, least=0.0)

    def stretches(self, sequences: Sequence[MotionSequence]) -> list[tuple[int, int, int]]:
        """(sequence index, first frame, frame after the last one) of every stretch in use."""
        found = []
        for index, sequence in enumerate(sequences):
            count = -(-sequence.num_frames // self.stretch_frames)
            borders = [sequence.num_frames * k // count for k in range(count + 1)]
            found += [(index, start, stop) for start, stop in itertools.pairwise(borders)]
        if self.max_stretches is None or len(found) <= self.max_stretches:
            return found
        step = len(found) / self.max_stretches
        return [found[int(k * step)] for k in range(self.max_stretches)]

    def clips(
        self, sequences: Sequence[MotionSequence], synthesizer: ClipSynthesizer, device: torch.device
    ) -> Iterator[tuple[MotionSequence, SyntheticClips]]:
        """What is seen of every stretch in use, as a batch of one clip on the device."""
        if next(synthesizer.buffers()).device != _CPU:
            synthesizer = copy.deepcopy(synthesizer).to(_CPU)  # the run's own stays where it is
        for index, start, stop in self.stretches(sequences):
            generator = seeded_generator(self.seed, index, start, device=_CPU)
            clips = MotionClips.of_sequence(sequences[index], start, stop, _CPU)
            if self.betas_std > 0:
                of_shape = seeded_generator(self.seed, index, start, _SHAPE, device=_CPU)
                drawn = torch.randn(clips.betas.shape, generator=of_shape).clamp(-3, 3)
                clips = replace(clips, betas=drawn * self.betas_std)
            yield sequences[index], synthesizer(clips, generator).to(device)


@torch.no_grad()
def evaluate_motion(
    model: nn.Module,
    sequences: Sequence[MotionSequence],
    *,
    evaluation: MotionEvaluation,
    synthesizer: ClipSynthesizer,
    body: SmplBody,
    regressor: JointRegressor,
    protocols: Sequence[Protocol],
    window_frames: int,
    device: torch.device,
    model_fps: float | None = None,
    on_stretch_done: Callable[[], None] = lambda: None,
) -> EvaluationResult:
    """Errors of `model` on the motion under each protocol, at a memory bounded by one stretch.

    Truth and prediction are of the same, neutral body, and all frames count: `Protocol.on_motion`.

    Args:
        model: normalised keypoints (B, T, J, 3) to `BodyParameters` in the crop frame.
        window_frames: clip length the model is run with.
        model_fps: frame rate that it was trained at; what it sees is brought to that, as in prediction. None: it
            sees the frames as they are.
        on_stretch_done: called after each of `evaluation.stretches(sequences)`, for progress.
    """
    measured = MeasuredBody(body, regressor, neutral=body).to(device)
    by_sequence: dict[str, dict[str, MeshMetrics]] = {}
    for sequence, clips in evaluation.clips(sequences, synthesizer, device):
        predicted = measured(
            recover_at_rate(
                model,
                clips.keypoints_px[0],
                clips.confidence[0],
                clips.K[0],
                window_frames=window_frames,
                rate_factor=1.0 if model_fps is None else sequence.fps / model_fps,
            )
        )
        true_parameters = clips.parameters_of(0)
        at_origin_m = torch.zeros_like(true_parameters.translation_m)  # where predictions are
        true = measured(replace(true_parameters, translation_m=at_origin_m))
        if sequence.name not in by_sequence:
            by_sequence[sequence.name] = {protocol.name: MeshMetrics(protocol) for protocol in protocols}
        for metric in by_sequence[sequence.name].values():
            metric.update(compare(metric.protocol, predicted, true), sequence.fps)
        on_stretch_done()
    return EvaluationResult.of(by_sequence)
