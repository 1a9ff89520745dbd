"""One person's 2D keypoints through a video."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike
from torch import Tensor

from core.camera import assumed_intrinsics
from core.skeleton import SKELETONS, Skeleton, convert_keypoints

# Nine hours at 30 fps. A longer span comes from a broken frame id, and filling it would exhaust the memory.
_MAX_FRAMES = 1_000_000
LARGEST_FPS = 1000  # more is no video's


@dataclass(frozen=True)
class Track:
    """One person in the frames in which a detector found them.

    Attributes:
        person_id: As the file names the person.
        skeleton: What the joints are.
        frame_ids: (frame,) strictly increasing video frames; a jump by more than 1 is a gap.
        keypoints_px: (frame, joint, 2), pixels from the image's edge.
        confidence: (frame, joint) in [0, 1]; 0 = unseen, whatever the keypoint holds.
        fps: Frames per second of the video.
        image_size: (height, width) in pixels, where known.
    """

    person_id: str
    skeleton: Skeleton
    frame_ids: Int[np.ndarray, "frame"]
    keypoints_px: Float[np.ndarray, "frame joint 2"]
    confidence: Float[np.ndarray, "frame joint"]
    fps: float
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        num_frames, num_joints = len(self.frame_ids), self.skeleton.num_joints
        problem = None
        if num_frames == 0:
            problem = "it has no frame"
        elif self.keypoints_px.shape != (num_frames, num_joints, 2):
            problem = f"its keypoints have shape {self.keypoints_px.shape}, not {(num_frames, num_joints, 2)}"
        elif self.confidence.shape != (num_frames, num_joints):
            problem = f"its confidence has shape {self.confidence.shape}, not {(num_frames, num_joints)}"
        elif not (np.diff(self.frame_ids) > 0).all():
            problem = "its frame ids do not increase"
        elif not (np.isfinite(self.keypoints_px).all() and np.isfinite(self.confidence).all()):
            problem = (
                "it holds values that are not finite; an unseen joint has confidence 0 and any finite place"
            )
        elif self.confidence.min() < 0 or self.confidence.max() > 1:
            problem = (
                f"its confidence spans {self.confidence.min():g} to {self.confidence.max():g}, not [0, 1]"
            )
        elif not 0 < self.fps <= LARGEST_FPS:
            problem = f"its frame rate is {self.fps}"
        elif self.image_size is not None and min(self.image_size) <= 0:
            problem = f"its image size is {self.image_size}"
        if problem is not None:
            raise ValueError(f"The track of person {self.person_id!r} is not valid: {problem}.")

    @classmethod
    def from_arrays(
        cls,
        keypoints: ArrayLike | Tensor,
        *,
        skeleton: str | Skeleton,
        fps: float | int,
        confidence: ArrayLike | Tensor | None = None,
        frame_ids: ArrayLike | Tensor | None = None,
        image_size: tuple[int, int] | None = None,
        person_id: str = "0",
    ) -> "Track":
        """One person as arrays, lists or tensors hold it.

        Args:
            keypoints: (frame, joint, 2), pixels from the image's edge, or (frame, joint, 3), the confidence last.
                A place that is not a number is unseen.
            skeleton: or its name, of `core.skeleton.SKELETONS`.
            fps: frames per second of the video.
            confidence: (frame, joint) in [0, 1]; None: the third number, or 1.
            frame_ids: whole numbers from 0 on; None: 0, 1, 2, ….
            image_size: (height, width) in pixels, where known.

        Raises:
            ValueError: they are no track, or there is no such skeleton.
        """
        if isinstance(skeleton, str):
            if skeleton not in SKELETONS:
                raise ValueError(
                    f"There is no skeleton {skeleton!r}; these are known: {', '.join(SKELETONS)}."
                )
            skeleton = SKELETONS[skeleton]
        places = _array(keypoints, np.float32)
        if places.ndim != 3 or places.shape[1:] not in ((skeleton.num_joints, 2), (skeleton.num_joints, 3)):
            raise ValueError(
                f"Keypoints of {skeleton.name} have shape (frame, {skeleton.num_joints}, 2), or 3 with their "
                f"confidence, and these have {places.shape}."
            )
        given = np.arange(len(places)) if frame_ids is None else _array(frame_ids, np.float64)
        if not np.all(given >= 0) or np.any(given % 1):
            raise ValueError("frame_ids are the numbers of video frames: whole, from 0 on.")
        numbers = given.astype(np.int64)
        sure = places[..., 2] if places.shape[2] == 3 else np.ones(places.shape[:2], np.float32)
        sure = sure if confidence is None else _array(confidence, np.float32)
        if numbers.shape != places.shape[:1] or sure.shape != places.shape[:2]:
            raise ValueError(
                f"Keypoints of shape {places.shape} do not go with frame_ids of {numbers.shape} and confidence of "
                f"{sure.shape}."
            )
        seen = np.all(np.isfinite(places[..., :2]), axis=-1, keepdims=True)
        return cls(
            person_id=person_id,
            skeleton=skeleton,
            frame_ids=numbers,
            keypoints_px=np.where(seen, places[..., :2], np.float32(0)),
            confidence=np.where(seen[..., 0], sure, np.float32(0)),
            fps=float(fps),
            image_size=image_size,
        )

    @property
    def num_frames(self) -> int:
        return len(self.frame_ids)

    @property
    def gaps(self) -> tuple[tuple[int, int], ...]:
        """(first, last) missing frame of every gap between detections."""
        (before,) = np.nonzero(np.diff(self.frame_ids) > 1)
        return tuple((int(self.frame_ids[i]) + 1, int(self.frame_ids[i + 1]) - 1) for i in before)

    def dense(self) -> "Track":
        """The same track with every frame from its first to its last.

        In a frame without a detection each joint lies on the straight line between its neighbouring seen
        places, with confidence 0: time stays right, and a network is told that nothing was seen. So does a
        joint that is unseen in a detected frame. A joint that is never seen lies at (0, 0).

        Raises:
            ValueError: If the frame ids span more than a million frames.
        """
        first, last = int(self.frame_ids[0]), int(self.frame_ids[-1])
        if last - first >= _MAX_FRAMES:
            raise ValueError(
                f"The track of person {self.person_id!r} spans frames {first} to {last}, more than a "
                "million; check its frame ids, or split it."
            )
        frame_ids = np.arange(first, last + 1)
        confidence = np.zeros((len(frame_ids), self.skeleton.num_joints), self.confidence.dtype)
        confidence[self.frame_ids - first] = self.confidence
        keypoints_px = np.zeros((*confidence.shape, 2), self.keypoints_px.dtype)
        for joint in range(self.skeleton.num_joints):
            seen = self.confidence[:, joint] > 0
            if seen.any():
                for axis in range(2):
                    keypoints_px[:, joint, axis] = np.interp(
                        frame_ids, self.frame_ids[seen], self.keypoints_px[seen, joint, axis]
                    )
        return replace(self, frame_ids=frame_ids, keypoints_px=keypoints_px, confidence=confidence)

    def to_skeleton(self, target: Skeleton) -> "ConvertedTrack":
        """The track in another skeleton, by `core.skeleton.convert_keypoints`."""
        converted = convert_keypoints(
            torch.from_numpy(self.keypoints_px), torch.from_numpy(self.confidence), self.skeleton, target
        )
        track = replace(
            self,
            skeleton=target,
            keypoints_px=converted.keypoints.numpy(),
            confidence=converted.confidence.numpy(),
        )
        return ConvertedTrack(track, converted.derived_joints, converted.missing_joints)

    def assumed_image_size(self) -> tuple[int, int]:
        """(height, width): the known one, or else the smallest picture at the origin with all seen keypoints.

        Too small where the person never comes near the right and lower edges, so tell the size if you can.
        """
        if self.image_size is not None:
            return self.image_size
        seen: Bool[np.ndarray, "frame joint"] = self.confidence > 0
        if not seen.any():
            return (1, 1)
        width, height = np.ceil(self.keypoints_px[seen].max(axis=0))
        return (max(int(height), 1), max(int(width), 1))


def _array(values: ArrayLike | Tensor, dtype: type[np.generic]) -> np.ndarray:
    # By way of double precision: numpy does not know all types of torch.
    return np.array(
        values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values, dtype=dtype
    )


@dataclass(frozen=True)
class TrackInput:
    """A track as models take it: every frame from its first to its last, as tensors.

    Attributes:
        keypoints_px, confidence: in the model's skeleton.
        K: intrinsics, given or assumed, of pictures of `image_size`.
        frame_ids: video frame of each.
        seen: whether the detector saw any joint in that frame; others are filled from their neighbours.
    """

    keypoints_px: Float[Tensor, "frame joint 2"]
    confidence: Float[Tensor, "frame joint"]
    K: Float[Tensor, "3 3"]
    frame_ids: Int[np.ndarray, "frame"]
    seen: Bool[np.ndarray, "frame"]
    image_size: tuple[int, int]

    @classmethod
    def of(
        cls,
        track: Track,
        skeleton: Skeleton,
        K: Float[Tensor, "3 3"] | None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> "TrackInput":
        """The track in the model's skeleton; `K` None assumes a focal length of the image's diagonal."""
        dense, image_size = track.dense(), track.assumed_image_size()
        converted = dense.to_skeleton(skeleton).track
        keypoints_px, confidence, K = (
            torch.as_tensor(array, dtype=dtype, device=device)
            for array in (
                converted.keypoints_px,
                converted.confidence,
                assumed_intrinsics(image_size) if K is None else K,
            )
        )
        seen = np.asarray((dense.confidence > 0).any(axis=1))
        return cls(keypoints_px, confidence, K, dense.frame_ids, seen, image_size)


@contextmanager
def naming_person(track: Track) -> Iterator[None]:
    """Adds to a ValueError whom it is about, where whoever raises it knows numbers alone."""
    try:
        yield
    except ValueError as error:
        sentence = str(error)
        raise ValueError(f"Person {track.person_id!r}: {sentence[:1].lower()}{sentence[1:]}") from None


class ConvertedTrack(NamedTuple):
    """A track in a target skeleton, the joints that were computed from others, and those that stay unseen."""

    track: Track
    derived_joints: tuple[str, ...]
    missing_joints: tuple[str, ...]
