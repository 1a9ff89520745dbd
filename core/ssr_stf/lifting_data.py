"""Where clips for lifting come from: what a source of them must offer, and that source for prepared data sets.

The unit of the network's joints is the metre. For joints in MotionBERT's 2.5D image space it is half the image's
width, as the predecessors have it, and every frame of the test set knows its own millimetres per pixel.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.datasets.lifting_sequences import LiftingSequence, PreparedLifting
from core.keypoints.windows import split_windows
from core.settings import require_number
from core.ssr_stf.lifting import InputNormalisation, mirrored, normalised_input

_MM_PER_M = 1000.0
# What the numbers of a network's joints count.
Unit = Literal["metre", "half image width"]
_PROTOCOL_AND_UNIT: dict[str, tuple[str, Unit]] = {
    "h36m": ("human36m", "half image width"),
    "h36m_videopose3d": ("human36m_videopose3d", "metre"),
    "3dhp": ("mpi_inf_3dhp", "metre"),
}


@dataclass(frozen=True)
class LiftingClips:
    """A batch: normalised keypoints (x, y, confidence), and joints relative to the pelvis in the source's unit."""

    keypoints: Float[Tensor, "clip frame 17 3"]
    joints: Float[Tensor, "clip frame 17 3"]


@dataclass(frozen=True, kw_only=True)
class LiftingTestSequence:
    """A sequence to be lifted, and what is true of it.

    Attributes:
        true_joints_mm: in the camera's axes.
        mm_per_unit: per frame, of the source's unit.
        evaluated: whether the frame counts.
    """

    name: str
    action: str
    fps: float
    keypoints_px: Float[np.ndarray, "frame 17 2"]
    confidence: Float[np.ndarray, "frame 17"]
    image_size: tuple[int, int]
    K: Float[np.ndarray, "3 3"] | None
    true_joints_mm: Float[np.ndarray, "frame 17 3"]
    mm_per_unit: Float[np.ndarray, "frame"]
    evaluated: Bool[np.ndarray, "frame"]


@runtime_checkable
class LiftingTrainingSet(Protocol):
    """Clips to train on; every batch is a function of its place in the run alone."""

    @property
    def num_too_short(self) -> int:
        """Sequences shorter than a clip, left out."""

    @property
    def fps(self) -> float:
        """Frame rate of the clips; of several, that of the most frames."""

    def clips(self, *, batch_size: int, num_frames: int, step: int) -> LiftingClips:
        """The batch of one step."""


@runtime_checkable
class LiftingSource(Protocol):
    """Training and test data of one kind."""

    normalisation: InputNormalisation
    unit: Unit
    protocol: str

    def training_set(self, *, max_clip_frames: int, seed: int) -> LiftingTrainingSet:
        """Of the split "train"."""

    def test_sequences(self, split: str) -> list[LiftingTestSequence]:
        """Of any other split."""


class PreparedLiftingSource:
    """Clips of a data set that tools/prepare_data.py has prepared.

    Args:
        data: the data set.
        strides_per_clip: clips of T frames begin every T / strides_per_clip frames (predecessors: 3).
        mirror_probability: how often left and right are exchanged in training.

    Raises:
        ValueError: the data are no prepared data set for lifting.
    """

    normalisation: InputNormalisation = "screen"

    def __init__(self, *, data: PreparedLifting, strides_per_clip: int, mirror_probability: float) -> None:
        if not isinstance(data, PreparedLifting):
            raise ValueError(
                "clips=prepared takes its clips from a prepared data set; add data=prepared_lifting "
                "data.root=FOLDER, or leave clips=prepared out."
            )
        require_number("clips.strides_per_clip", strides_per_clip, least=1, whole=True)
        require_number("clips.mirror_probability", mirror_probability, least=0.0, most=1.0)
        if data.dataset not in _PROTOCOL_AND_UNIT:
            raise ValueError(
                f"{data.root} holds {data.dataset!r}, which is no data set for lifting; those are "
                f"{', '.join(_PROTOCOL_AND_UNIT)}."
            )
        self.data = data
        self.protocol, self.unit = _PROTOCOL_AND_UNIT[data.dataset]
        self.strides_per_clip = strides_per_clip
        self.mirror_probability = mirror_probability

    def training_set(self, *, max_clip_frames: int, seed: int) -> "PreparedTrainingSet":
        sequences = self.data.sequences("train")
        usable = [sequence for sequence in sequences if sequence.num_frames >= max_clip_frames]
        return PreparedTrainingSet(
            usable,
            num_too_short=len(sequences) - len(usable),
            strides_per_clip=self.strides_per_clip,
            mirror_probability=self.mirror_probability,
            seed=seed,
        )

    def test_sequences(self, split: str) -> list[LiftingTestSequence]:
        if split not in ("train", "test"):
            raise ValueError(
                f"{self.data.root} is split into train and test; there is no {split!r}: say "
                "validation.split=test in training, split=test in evaluation."
            )
        kind: Literal["train", "test"] = "train" if split == "train" else "test"
        return [_test_sequence(sequence) for sequence in self.data.sequences(kind)]


class PreparedTrainingSet:
    """All clips of the sequences in one random order per epoch.

    Raises:
        ValueError: there is no sequence.
    """

    def __init__(
        self,
        sequences: list[LiftingSequence],
        *,
        num_too_short: int,
        strides_per_clip: int,
        mirror_probability: float,
        seed: int,
    ) -> None:
        if not sequences:
            raise ValueError(
                f"None of the {num_too_short} training sequences is as long as a clip; use shorter clips."
            )
        self.num_too_short = num_too_short
        self.sequences = sequences
        self.strides_per_clip = strides_per_clip
        self.mirror_probability = mirror_probability
        self.seed = seed
        self._places: dict[int, np.ndarray] = {}
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    @property
    def fps(self) -> float:
        num_frames: dict[float, int] = {}
        for sequence in self.sequences:
            num_frames[sequence.fps] = num_frames.get(sequence.fps, 0) + sequence.num_frames
        return max(num_frames, key=lambda rate: num_frames[rate])

    def places(self, num_frames: int) -> np.ndarray:
        """(clip, 2): sequence and first frame of every clip of that length; the last ends with its sequence."""
        if num_frames not in self._places:
            overlap = num_frames - max(num_frames // self.strides_per_clip, 1)
            self._places[num_frames] = np.array(
                [
                    (index, window.start)
                    for index, sequence in enumerate(self.sequences)
                    for window in split_windows(sequence.num_frames, num_frames, overlap)
                ]
            )
        return self._places[num_frames]

    def clips(self, *, batch_size: int, num_frames: int, step: int) -> LiftingClips:
        places = self.places(num_frames)
        first = step * batch_size
        chosen = [self._clip_at(number, places, num_frames) for number in range(first, first + batch_size)]
        clips = [self._clip(int(places[k, 0]), int(places[k, 1]), num_frames) for k in chosen]
        keypoints, joints = (torch.stack(tensors) for tensors in zip(*clips, strict=True))
        rng = np.random.default_rng([self.seed, step])
        mirror = torch.from_numpy(rng.random(batch_size) < self.mirror_probability)[:, None, None, None]
        return LiftingClips(
            torch.where(mirror, mirrored(keypoints), keypoints), torch.where(mirror, mirrored(joints), joints)
        )

    def _clip_at(self, number: int, places: np.ndarray, num_frames: int) -> int:
        """The clip at a place in the endless row of epochs, each in an order of its own.

        Places are counted in batches of the phase: where their size changes between phases of one clip length, some
        clips of an epoch come twice, or not.
        """
        epoch, position = divmod(number, len(places))
        if self._order is None or self._order[0] != (epoch, num_frames):
            order = np.random.default_rng([self.seed, epoch, num_frames]).permutation(len(places))
            self._order = ((epoch, num_frames), order)
        return int(self._order[1][position])

    def _clip(self, index: int, start: int, num_frames: int) -> tuple[Tensor, Tensor]:
        sequence, frames = self.sequences[index], slice(start, start + num_frames)
        keypoints_px, confidence, joints = (
            torch.tensor(np.asarray(array[frames]), dtype=torch.float32)
            for array in (sequence.keypoints_px, sequence.confidence, sequence.joints)
        )
        keypoints, _ = normalised_input(
            keypoints_px[None],
            confidence[None],
            normalisation=PreparedLiftingSource.normalisation,
            image_size=sequence.image_size,
            K=None,
        )
        return keypoints[0], (joints - joints[:, :1]) / _per_unit(sequence)


def _per_unit(sequence: LiftingSequence) -> float:
    """What `sequence.joints` are counted in, per unit of the network."""
    return _MM_PER_M if sequence.joint_space == "camera_mm" else sequence.image_size[1] / 2


def _test_sequence(sequence: LiftingSequence) -> LiftingTestSequence:
    num_frames = sequence.num_frames
    mm_per_unit = np.full(num_frames, _MM_PER_M)
    true_joints_mm = sequence.joints
    if sequence.joint_space == "image_25d":
        if sequence.mm_per_px is None or sequence.joints_25d_mm is None:
            raise ValueError(
                f"Sequence {sequence.name} holds no 2.5d_factor, so its errors cannot be told in millimetres; "
                "evaluate on the split that has it (test)."
            )
        mm_per_unit = np.asarray(sequence.mm_per_px) * sequence.image_size[1] / 2
        true_joints_mm = sequence.joints_25d_mm
    return LiftingTestSequence(
        name=sequence.name,
        action=sequence.action,
        fps=sequence.fps,
        keypoints_px=sequence.keypoints_px,
        confidence=sequence.confidence,
        image_size=sequence.image_size,
        K=sequence.K,
        true_joints_mm=true_joints_mm,
        mm_per_unit=mm_per_unit,
        evaluated=sequence.valid,
    )
