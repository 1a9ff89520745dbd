"""Recorded people with bodies or joints as ground truth: what every prepared mesh data set looks like.

One npz per person of a sequence, `<root>/<split>/<name>.npz`, whatever archive it came from; `preparation.json`
names those that belong to the set.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.atomic_write import written_whole
from core.datasets.resumable_jobs import LOG_NAME, finished_files
from core.refusing_unpickler import read_npz
from core.rotations import rotvec_to_rotmat

Gender = Literal["male", "female", "neutral"]

_OPTIONAL = ("poses_rotvec", "translation_world_m", "betas", "joints_cam_m", "valid", "frame_betas")
# What follows the number of frames.
_FRAME_SHAPES: dict[str, tuple[int, ...]] = {
    "frame_ids": (),
    "keypoints_px": (17, 2),
    "confidence": (17,),
    "poses_rotvec": (24, 3),
    "translation_world_m": (3,),
    "R_cam_world": (3, 3),
    "t_cam_world_m": (3,),
    "joints_cam_m": (17, 3),
    "evaluated": (),
    "valid": (),
    "frame_betas": (10,),
}
_FIXED_SHAPES: dict[str, tuple[int, ...]] = {"K": (3, 3), "betas": (10,)}


@dataclass(frozen=True, kw_only=True)
class MeshSequence:
    """One person of one sequence as one camera saw them; SMPL's conventions for the body.

    Attributes:
        name: Also the file's name.
        dataset: Which set it was prepared from.
        gender: Of the body that `poses_rotvec` and `betas` belong to.
        frame_ids: Strictly increasing image numbers; a jump by more than 1 is a gap.
        fps: Of consecutive frame ids.
        image_size: (height, width), pixels.
        K: Intrinsics, px.
        keypoints_px: H36M_17, px.
        confidence: In [0, 1]; 0 where a joint is absent.
        poses_rotvec: SMPL-24 axis-angle, rad; joint 0 is the orientation in the world. None: no body known.
        translation_world_m: SMPL's translation, added to every posed point. None: where the body stands is
            not known.
        R_cam_world, t_cam_world_m: x_cam = R_cam_world x_world + t_cam_world_m, per frame: cameras move.
        betas: Ten shape coefficients. None: no body known.
        joints_cam_m: H36M_17 in the camera frame, metres, of which only differences between joints count. None
            where the body gives them.
        evaluated: Frames that the set's owners count (3DPW: `valid`, and at least six joints were detected).
        valid: Frames whose ground truth is right (3DPW: `campose_valid`). None: all.
        frame_betas: Where the shape was fitted frame by frame; `betas` is then their mean. None: `betas` is exact.
    """

    name: str
    dataset: str
    gender: Gender
    frame_ids: Int[np.ndarray, "frame"]
    fps: float
    image_size: tuple[int, int]
    K: Float[np.ndarray, "3 3"]
    keypoints_px: Float[np.ndarray, "frame 17 2"]
    confidence: Float[np.ndarray, "frame 17"]
    poses_rotvec: Float[np.ndarray, "frame 24 3"] | None
    translation_world_m: Float[np.ndarray, "frame 3"] | None
    R_cam_world: Float[np.ndarray, "frame 3 3"]
    t_cam_world_m: Float[np.ndarray, "frame 3"]
    betas: Float[np.ndarray, "10"] | None
    joints_cam_m: Float[np.ndarray, "frame 17 3"] | None
    evaluated: Bool[np.ndarray, "frame"]
    valid: Bool[np.ndarray, "frame"] | None = None
    frame_betas: Float[np.ndarray, "frame 10"] | None = None

    def __post_init__(self) -> None:
        problem = self._problem()
        if problem is not None:
            raise ValueError(f"The mesh sequence {self.name!r} is not valid: {problem}.")

    def _problem(self) -> str | None:
        num_frames = self.num_frames
        if num_frames == 0:
            return "it has no frame"
        if self.gender not in get_args(Gender):
            return f"its gender is {self.gender!r}"
        expected = {key: (num_frames, *shape) for key, shape in _FRAME_SHAPES.items()} | _FIXED_SHAPES
        for key, shape in expected.items():
            array = getattr(self, key)
            if array is None:
                continue
            if array.shape != shape:
                return f"its {key} has shape {array.shape}, not {shape}"
            if not np.isfinite(array).all():
                return f"its {key} holds values that are not finite"
        if not (np.diff(self.frame_ids) > 0).all():
            return "its frame ids do not increase"
        if self.confidence.min() < 0 or self.confidence.max() > 1:
            return f"its confidence spans {self.confidence.min():g} to {self.confidence.max():g}, not [0, 1]"
        if (self.poses_rotvec is None) != (self.betas is None):
            return "it has poses without betas, or betas without poses"
        if not (np.isfinite(self.fps) and self.fps > 0):
            return f"its frame rate is {self.fps}"
        if len(self.image_size) != 2 or min(self.image_size) <= 0:
            return f"its image size is {self.image_size}"
        return None

    @property
    def num_frames(self) -> int:
        return len(self.frame_ids)

    @property
    def valid_frames(self) -> Bool[np.ndarray, "frame"]:
        return np.ones(self.num_frames, bool) if self.valid is None else self.valid

    def parameters_cam(
        self, rest_pelvis_m: Float[Tensor, "3"]
    ) -> tuple[Float[Tensor, "frame 3 3"], Float[Tensor, "frame 3"] | None]:
        """Root orientation and translation of the body in the camera's frame, dtype and device of the argument.

        SMPL turns the root about the rest pelvis J₀, not about the origin, so the translation does not just
        follow the camera: with x_cam = R x_world + t, root_cam = R · root_world and
        translation_cam = R (J₀ + translation_world) + t − J₀.

        Args:
            rest_pelvis_m: (3,) J₀, the rest position of the pelvis for this person's betas and gender.

        Returns:
            (T, 3, 3), and (T, 3) or None where the set does not tell where the person stands.

        Raises:
            ValueError: the sequence has no body.
        """
        if self.poses_rotvec is None:
            raise ValueError(
                f"The sequence {self.name!r} of {self.dataset} has joints but no body; "
                "it cannot be asked for body parameters."
            )
        # Worlds reach far, and float32 would lose micrometres of what the subtraction leaves.
        R_cam_world = torch.from_numpy(self.R_cam_world).double()
        root_cam = R_cam_world @ rotvec_to_rotmat(torch.from_numpy(self.poses_rotvec[:, 0]).double())
        if self.translation_world_m is None:
            return root_cam.to(rest_pelvis_m), None
        pelvis_rest_m = rest_pelvis_m.detach().cpu().double()
        pelvis_world_m = pelvis_rest_m + torch.from_numpy(self.translation_world_m).double()
        pelvis_cam_m = (R_cam_world @ pelvis_world_m[..., None])[..., 0] + torch.from_numpy(
            self.t_cam_world_m
        ).double()
        return root_cam.to(rest_pelvis_m), (pelvis_cam_m - pelvis_rest_m).to(rest_pelvis_m)


def as_floats(values: Any, dtype: type[np.floating]) -> Float[np.ndarray, "..."]:
    """What a foreign file calls an array, as one of floats; too large a number becomes infinite.

    Raises:
        TypeError, ValueError: It holds anything but real numbers.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiubO":
        raise TypeError(f"type {array.dtype}")
    try:
        with np.errstate(over="ignore"):
            return array.astype(dtype)
    except OverflowError as error:  # integers beyond any float
        raise ValueError(str(error)) from error


def write_mesh_sequence(path: str | Path, sequence: MeshSequence) -> None:
    """Writes a sequence as npz, replacing `path` once complete; what is None is left out."""
    values = {field.name: getattr(sequence, field.name) for field in fields(sequence)}
    arrays: dict[str, Any] = {key: np.asarray(value) for key, value in values.items() if value is not None}
    with written_whole(path) as file:
        np.savez(file, **arrays)


def read_mesh_sequence(path: str | Path) -> MeshSequence:
    """Reads what `write_mesh_sequence` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or is no mesh sequence; the message names it.
    """
    path = Path(path)
    arrays = read_npz(path)
    needed = [field.name for field in fields(MeshSequence) if field.name not in _OPTIONAL]
    if missing := [key for key in needed if key not in arrays]:
        raise ValueError(f"{path} is no mesh sequence: it lacks {', '.join(missing)}.")
    try:
        arrays |= {key: str(arrays[key]) for key in ("name", "dataset", "gender")}
        arrays |= {"fps": float(arrays["fps"]), "image_size": tuple(map(int, arrays["image_size"]))}
        return MeshSequence(**{field.name: arrays.get(field.name) for field in fields(MeshSequence)})  # type: ignore[arg-type]
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def find_mesh_sequences(root: str | Path, split: str) -> list[Path]:
    """The files of a split that belong to the set, sorted by name.

    Raises:
        ValueError: there is no set, it has no such split, or it is not whole: its preparation was not finished, or
            files of it are gone.
    """
    root = Path(root)
    is_there = (root / LOG_NAME).is_file() or any((root / split).glob("*.npz"))
    files = finished_files(root, split) if is_there else []
    if not files:
        raise ValueError(
            f"There is no prepared mesh sequence in {root / split}; run tools/prepare_data.py first, or name the "
            "folder that it wrote to."
        )
    return files
