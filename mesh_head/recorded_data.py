"""Recorded people to training clips: real keypoints, and what their data set knows in three dimensions.

Beside motion before virtual cameras (`motion_data`), this is the other kind of thing that a batch is made of.

Shapes: B clips, T frames.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from body_models.parameters import BodyParameters
from core.datasets.mesh_sequences import Gender, MeshSequence, find_mesh_sequences, read_mesh_sequence
from core.keypoints.clip import NormalisedClip, normalise_clip
from core.rotations import mean_rotmat, mirror_rotmat, mirror_rotvec, rotvec_to_rotmat
from core.skeleton import H36M_17, SMPL_24
from mesh_head.losses import MeshTarget
from mesh_head.supervision import BodyPoints, SupervisedBody

_GENDERS: tuple[Gender, ...] = get_args(Gender)
# 25 frames per second pass for 30; beyond this, what moves would move too fast or too slow.
_LARGEST_RATE_ERROR = 0.2


@dataclass(frozen=True, kw_only=True)
class RecordedFolder:
    """A data set as tools/prepare_data.py leaves it.

    Attributes:
        root: the folder it was prepared into; None: not said yet.
        split: its sub-folder to train on.
        fps: the rate that clips are wanted at. Of a set at about a multiple of it, every n-th frame is taken; at
            any other rate, and of single pictures, a clip is one frame that stands still.
        shape_space: the body model that its betas are of. With any other, bodies are of the mean shape and betas
            are not supervised.
        gendered: whether bodies are posed as of their own gender, where betas are of use at all; else the neutral
            body takes the betas of either gender, as MotionBERT does.
    """

    root: str | None
    split: str
    fps: float
    shape_space: str
    gendered: bool

    def read(self) -> list[MeshSequence]:
        assert self.root is not None
        return [read_mesh_sequence(path) for path in find_mesh_sequences(self.root, self.split)]


@dataclass(frozen=True)
class RecordedClips:
    """What a camera saw, and what is known to have been there (camera frame)."""

    keypoints_px: Float[Tensor, "clip frame 17 2"]
    confidence: Float[Tensor, "clip frame 17"]
    K: Float[Tensor, "clip 3 3"]
    parameters_cam: BodyParameters | None
    points_cam: BodyPoints
    are_betas_known: bool

    def normalised(self) -> tuple[NormalisedClip, MeshTarget]:
        """Network input and target, both in each clip's crop frame."""
        clip = normalise_clip(self.keypoints_px, self.confidence, self.K)
        R_crop_cam = clip.R_crop_cam[:, None]
        R_cam_crop = R_crop_cam.transpose(-1, -2)
        points = BodyPoints(self.points_cam.joints_m @ R_cam_crop, self.points_cam.vertices_m @ R_cam_crop)
        parameters = self.parameters_cam
        if parameters is not None:
            parameters = replace(parameters, root_rotmat=R_crop_cam @ parameters.root_rotmat)
        return clip, MeshTarget(parameters, points.relative_to_pelvis(), self.are_betas_known)


class RecordedLibrary(nn.Module):
    """All sequences of a data set, joined end to end on the device; clips are drawn uniformly over their frames.

    Only frames that the set's owners evaluate are used: there, keypoints were detected and the truth is right.

    Args:
        sequences: of one data set, all with a body, or all with joints.
        folder: how to use them.
        body: gives joints and sampled vertices of neutral bodies.
        body_model: the shape space of `body`.
        body_of_gender: the same joints and vertices of the other bodies; called where they are needed.
        max_clip_frames: the longest clip that will be asked for.
        mirror_probability: how often left and right are exchanged.

    Raises:
        ValueError: no sequence has a stretch as long as the longest clip; or there is nothing to learn from.
    """

    keypoints_px: Tensor
    confidence: Tensor
    K: Tensor
    sequence_ids: Tensor
    first_frames: Tensor
    root_rotmat_cam: Tensor
    body_rotvec: Tensor
    betas: Tensor
    joints_cam_m: Tensor
    gender_ids: Tensor

    def __init__(
        self,
        sequences: Sequence[MeshSequence],
        *,
        folder: RecordedFolder,
        body: SupervisedBody,
        body_model: str,
        body_of_gender: Callable[[Gender], SupervisedBody],
        max_clip_frames: int,
        mirror_probability: float,
    ) -> None:
        super().__init__()
        stride = self.stride = _stride(sequences[0], folder.fps)
        self.mirror_probability = mirror_probability
        starts = [_starts(sequence, stride * (max_clip_frames - 1) + 1) for sequence in sequences]
        self.num_too_short = sum(len(found) == 0 for found in starts)
        if self.num_too_short == len(sequences):
            raise ValueError(
                f"No sequence of {folder.root} has {max_clip_frames} evaluated frames in a row, a clip's length, "
                f"at {folder.fps:g} frames per second; use shorter clips."
            )
        usable = [
            (sequence, found) for sequence, found in zip(sequences, starts, strict=True) if len(found) > 0
        ]
        kept = [sequence for sequence, _ in usable]
        self.has_bodies = all(sequence.poses_rotvec is not None for sequence in kept)
        if not self.has_bodies and any(sequence.joints_cam_m is None for sequence in kept):
            raise ValueError(
                f"{folder.root} holds sequences with neither a body nor 3D joints; 2D keypoints alone teach "
                "nothing here: leave the set out, or prepare it again with what it lacks."
            )
        offsets = np.cumsum([0, *(sequence.num_frames for sequence in kept)])
        arrays = {
            "keypoints_px": np.concatenate([sequence.keypoints_px for sequence in kept]),
            "confidence": np.concatenate([sequence.confidence for sequence in kept]),
            "K": np.stack([sequence.K for sequence in kept]),
        }
        if self.has_bodies:
            self.register_buffer("root_rotmat_cam", torch.cat([_root_cam(s) for s in kept]), persistent=False)
            self.has_own_shapes = folder.shape_space == body_model
            arrays["body_rotvec"] = np.concatenate([_poses(sequence)[:, 1:] for sequence in kept])
            arrays["betas"] = np.concatenate([_frame_betas(s, self.has_own_shapes) for s in kept])
        else:
            self.has_own_shapes = False
            arrays["joints_cam_m"] = np.concatenate(
                [s.joints_cam_m for s in kept if s.joints_cam_m is not None]
            )
        is_gendered = folder.gendered and self.has_own_shapes
        genders: list[Gender] = [
            sequence.gender if is_gendered and self.has_bodies else "neutral" for sequence in kept
        ]
        self.are_betas_known = self.has_own_shapes and set(genders) == {"neutral"}
        self.bodies = nn.ModuleDict({gender: body_of_gender(gender) for gender in set(genders) - {"neutral"}})
        self.bodies["neutral"] = body
        ids = {
            "first_frames": np.concatenate(
                [first + found for first, (_, found) in zip(offsets, usable, strict=False)]
            ),
            "sequence_ids": np.repeat(np.arange(len(kept)), [len(found) for _, found in usable]),
            "gender_ids": np.array([_GENDERS.index(gender) for gender in genders]),
        }
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(array).float(), persistent=False)
        for name, array in ids.items():
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    @torch.no_grad()
    def forward(self, num_clips: int, num_frames: int, generator: torch.Generator) -> RecordedClips:
        """Clips of `num_frames` frames, at most `max_clip_frames`, at random places."""
        device = self.keypoints_px.device
        chosen = torch.randint(len(self.first_frames), (num_clips,), generator=generator, device=device)
        frames = self.first_frames[chosen, None] + self.stride * torch.arange(num_frames, device=device)
        mirror = torch.rand(num_clips, generator=generator, device=device) < self.mirror_probability
        sequence_ids = self.sequence_ids[chosen]
        K = self.K[sequence_ids]
        keypoints_px, confidence = _mirrored_keypoints(
            self.keypoints_px[frames], self.confidence[frames], K, mirror
        )
        if not self.has_bodies:
            joints = self.joints_cam_m[frames]
            mirrored = joints[..., list(H36M_17.mirror_permutation), :] * joints.new_tensor([-1.0, 1.0, 1.0])
            joints = torch.where(mirror[:, None, None, None], mirrored, joints)
            points = BodyPoints(joints, joints[..., :0, :])
            return RecordedClips(keypoints_px, confidence, K, None, points, False)

        root, body_rotvec = self.root_rotmat_cam[frames], self.body_rotvec[frames]
        # The body's permutation without the root, which stays where it is.
        permutation = [joint - 1 for joint in SMPL_24.mirror_permutation[1:]]
        root = torch.where(mirror[:, None, None, None], mirror_rotmat(root), root)
        body_rotvec = torch.where(
            mirror[:, None, None, None], mirror_rotvec(body_rotvec[:, :, permutation]), body_rotvec
        )
        parameters = BodyParameters(
            root_rotmat=root,
            body_rotmat=rotvec_to_rotmat(body_rotvec),
            betas=self.betas[frames],
            translation_m=torch.zeros_like(body_rotvec[:, :, 0]),
        )
        points = self._points(parameters, self.gender_ids[sequence_ids])
        return RecordedClips(keypoints_px, confidence, K, parameters, points, self.are_betas_known)

    def mean_body_rotmat(self) -> Float[Tensor, "23 3 3"] | None:
        """Chordal mean of every body joint's rotation over all frames; None where there are no bodies."""
        if not self.has_bodies:
            return None
        return mean_rotmat(self.body_rotvec)

    def _points(self, parameters: BodyParameters, gender_ids: Int[Tensor, "clip"]) -> BodyPoints:
        """Every clip's body posed as of its gender."""
        if len(self.bodies) == 1:
            points: BodyPoints = self.bodies["neutral"](parameters)
            return points
        order, parts = [], []
        for gender, body in self.bodies.items():
            clips = (gender_ids == _GENDERS.index(gender)).nonzero()[:, 0]
            order.append(clips)
            parts.append(body(parameters.select(clips)))
        back = torch.cat(order).argsort()
        return BodyPoints(
            torch.cat([part.joints_m for part in parts])[back],
            torch.cat([part.vertices_m for part in parts])[back],
        )


def _mirrored_keypoints(
    keypoints_px: Float[Tensor, "clip frame 17 2"],
    confidence: Float[Tensor, "clip frame 17"],
    K: Float[Tensor, "clip 3 3"],
    mirror: Bool[Tensor, "clip"],
) -> tuple[Float[Tensor, "clip frame 17 2"], Float[Tensor, "clip frame 17"]]:
    """Mirrored about the principal point, so that the same camera sees the mirrored person."""
    permutation = list(H36M_17.mirror_permutation)
    mirrored = keypoints_px[:, :, permutation]
    x = 2 * K[:, None, None, 0, 2] - mirrored[..., 0]
    mirrored = torch.stack([x, mirrored[..., 1]], dim=-1)
    return (
        torch.where(mirror[:, None, None, None], mirrored, keypoints_px),
        torch.where(mirror[:, None, None], confidence[:, :, permutation], confidence),
    )


def _stride(sequence: MeshSequence, fps: float) -> int:
    """Frames from one of a clip to the next; 0 where clips stand still."""
    stride = max(round(sequence.fps / fps), 1)
    return stride if abs(sequence.fps / stride / fps - 1) <= _LARGEST_RATE_ERROR else 0


def _starts(sequence: MeshSequence, span: int) -> Int[np.ndarray, "start"]:
    """First frames of all stretches of `span` evaluated frames without a gap."""
    is_border = np.ones(sequence.num_frames + 1, bool)
    is_border[1:-1] = np.diff(sequence.frame_ids) > 1
    # Before and after every frame that is left out, so that it is a stretch of its own.
    is_border[:-1] |= ~sequence.evaluated
    is_border[1:] |= ~sequence.evaluated
    borders = np.nonzero(is_border)[0]
    starts = [
        np.arange(start, stop - span + 1)
        for start, stop in itertools.pairwise(borders)
        if sequence.evaluated[start]
    ]
    return np.concatenate(starts) if starts else np.zeros(0, np.int64)


def _poses(sequence: MeshSequence) -> Float[np.ndarray, "frame 24 3"]:
    assert sequence.poses_rotvec is not None
    return sequence.poses_rotvec


def _root_cam(sequence: MeshSequence) -> Float[Tensor, "frame 3 3"]:
    return sequence.parameters_cam(torch.zeros(3))[0]


def _frame_betas(sequence: MeshSequence, has_own_shape: bool) -> Float[np.ndarray, "frame 10"]:
    assert sequence.betas is not None
    if not has_own_shape:
        return np.zeros((sequence.num_frames, 10))
    if sequence.frame_betas is not None:
        return sequence.frame_betas
    return np.tile(sequence.betas, (sequence.num_frames, 1))
