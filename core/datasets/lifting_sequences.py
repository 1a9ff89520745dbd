"""Sequences of 2D keypoints with 3D joints, as a preparation left them: memory-mapped, one data set a folder.

<root>/manifest.json                        data set, its parts per split, written last
<root>/<split>/<part>/sequences.json        what lies where in the arrays
<root>/<split>/<part>/{keypoints_px, …}.npy
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float

from core.datasets.array_store import read_manifest, read_part

JointSpace = Literal["camera_mm", "image_25d"]


@dataclass(frozen=True, kw_only=True)
class LiftingSequence:
    """One take of one person by one camera, joints in the order of H36M_17.

    Attributes:
        name: Unique in its data set.
        subject, action, camera: As the data set names them.
        keypoints_px: (frame, 17, 2), pixels from the image's edge.
        confidence: (frame, 17) in [0, 1].
        joints: (frame, 17, 3), see `joint_space`.
        joint_space: "camera_mm": camera frame (x right, y down, z forward), millimetres. "image_25d": x and y
            in pixels, z relative to the pelvis in the same, per frame differently scaled, pixels (MotionBERT's
            `joint3d_image`).
        mm_per_px: (frame,) millimetres per scaled pixel (MotionBERT's `2.5d_factor`), where the set tells.
        joints_25d_mm: (frame, 17, 3) `joints` × `mm_per_px`, the ground truth of MotionBERT's evaluation.
        image_size: (height, width).
        K: (3, 3) intrinsics, or None where the set holds none.
        fps: Frames per second.
        valid: (frame,) whether the frame counts in an evaluation.
    """

    name: str
    subject: str
    action: str
    camera: str
    keypoints_px: Float[np.ndarray, "frame 17 2"]
    confidence: Float[np.ndarray, "frame 17"]
    joints: Float[np.ndarray, "frame 17 3"]
    joint_space: JointSpace
    mm_per_px: Float[np.ndarray, "frame"] | None
    joints_25d_mm: Float[np.ndarray, "frame 17 3"] | None
    image_size: tuple[int, int]
    K: Float[np.ndarray, "3 3"] | None
    fps: float
    valid: Bool[np.ndarray, "frame"]

    @property
    def num_frames(self) -> int:
        return len(self.keypoints_px)


class PreparedLifting:
    """A data set that `tools/prepare_data.py` has prepared.

    Raises:
        ValueError: If the folder holds none, or its preparation did not finish.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        manifest = read_manifest(self.root)
        self.dataset: str = manifest["dataset"]
        self._parts: dict[str, list[str]] = manifest["parts"]

    def sequences(self, split: str) -> list[LiftingSequence]:
        """All sequences of a split, "train" or "test"; their arrays are read from disk when they are used.

        Raises:
            ValueError: If the set has no such split, or its files are damaged.
        """
        if split not in self._parts:
            raise ValueError(f"{self.root} has no split {split!r}; it has {', '.join(self._parts)}.")
        return [sequence for part in self._parts[split] for sequence in self._read(split, part)]

    def _read(self, split: str, name: str) -> list[LiftingSequence]:
        folder = self.root / split / name
        part = read_part(folder)
        try:
            return [_sequence(entry, part.arrays) for entry in part.sequences]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"{folder} is damaged (its index or arrays lack {error}); delete it and prepare the data set again."
            ) from error


def _sequence(entry: Mapping[str, Any], of_part: Mapping[str, np.ndarray]) -> LiftingSequence:
    arrays = {key: array[entry["start"] : entry["stop"]] for key, array in of_part.items()}
    return LiftingSequence(
        name=entry["name"],
        subject=entry["subject"],
        action=entry["action"],
        camera=entry["camera"],
        keypoints_px=arrays["keypoints_px"],
        confidence=arrays["confidence"],
        joints=arrays["joints"],
        joint_space=entry["joint_space"],
        mm_per_px=arrays.get("mm_per_px"),
        joints_25d_mm=arrays.get("joints_25d_mm"),
        image_size=(entry["image_size"][0], entry["image_size"][1]),
        K=None if entry["K"] is None else np.array(entry["K"], np.float64),
        fps=entry["fps"],
        valid=arrays["valid"],
    )
