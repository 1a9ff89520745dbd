"""Motion to training clips: body, virtual cameras, detector-like noise, crop, targets.

Only parameters are stored. Joints, projections and noise are made anew for every batch, on the device of the
model, so that no clip is ever seen twice in the same way.

Shapes: B clips, T frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from body_models.parameters import BodyParameters
from core.camera import R_YDOWN_ZUP, VirtualCameraSampler, project
from core.datasets.resumable_jobs import LOG_NAME, finished_files
from core.keypoints.clip import NormalisedClip, normalise_clip
from core.keypoints.detector_noise import DetectorNoise
from core.motion.procedural import procedural_motion
from core.motion.sequence import MotionSequence, find_motion_files, read_motion_npz, resample
from core.rotations import mean_rotmat, mirror_rotvec, rotvec_to_rotmat
from core.settings import require_number
from core.skeleton import SMPL_24
from mesh_head.losses import MeshTarget
from mesh_head.supervision import BodyPoints, SupervisedBody


@runtime_checkable
class MotionSource(Protocol):
    """Where sequences come from, by split name."""

    def read(self, split: str) -> list[MotionSequence]: ...


@dataclass(frozen=True, kw_only=True)
class FolderMotion:
    """Motion files in the AMASS layout below `root/<split>`, brought to one frame rate.

    Of a folder that tools/prepare_data.py filled, what its record names: a preparation that was interrupted is
    refused, as half a split would pass for all of it, and so is a file that came from elsewhere.
    """

    root: str | None  # None: not said yet
    fps: float

    def read(self, split: str) -> list[MotionSequence]:
        if self.root is None:
            raise ValueError("Say where the motion files lie: data.root=FOLDER, with a sub-folder per split.")
        require_number("fps of motion", self.fps, above=0.0)
        root, folder = Path(self.root), Path(self.root) / split
        is_prepared = (root / LOG_NAME).is_file()  # a folder of one's own has no record
        prepared = set(finished_files(root, split)) if is_prepared else set()
        files = find_motion_files(root, split)
        others = [path for path in files if path not in prepared] if is_prepared else []
        if others:
            raise ValueError(
                f"{others[0]} is not of the set that was prepared in {root}: {LOG_NAME} does not name it; "
                "put it into another folder."
            )
        found = []
        for path in files:
            # Files of equal names in several folders are several sequences.
            name = path.relative_to(folder).with_suffix("").as_posix()
            found.append(replace(resample(read_motion_npz(path), self.fps), name=name))
        return found


@dataclass(frozen=True, kw_only=True)
class ProceduralMotion:
    """Motion made from a seed; every split has a seed of its own.

    Attributes:
        num_sequences: by split name.
        num_frames: per sequence.
    """

    num_sequences: dict[str, int]
    num_frames: int
    fps: float
    seed: int

    def read(self, split: str) -> list[MotionSequence]:
        if split not in self.num_sequences:
            raise ValueError(
                f"Procedural motion has no split {split!r}; it has {', '.join(self.num_sequences)}."
            )
        for key, number in (("num_sequences", self.num_sequences[split]), ("num_frames", self.num_frames)):
            require_number(f"{key} of procedural motion", number, least=1, whole=True)
        require_number("seed of procedural motion", self.seed, least=0, whole=True)
        require_number("fps of procedural motion", self.fps, above=0.0)
        split_seed = int(np.random.SeedSequence([self.seed, *split.encode()]).generate_state(1)[0])
        return procedural_motion(
            num_sequences=self.num_sequences[split], num_frames=self.num_frames, fps=self.fps, seed=split_seed
        )


@dataclass(frozen=True, kw_only=True)
class FolderPlusProceduralMotion:
    """Motion files, and for training procedural motion beside them: poses that the files lack.

    Attributes:
        root: folder with one sub-folder of motion files per split.
        num_procedural_sequences, num_frames, seed: of the procedural part.
    """

    root: str
    fps: float
    num_procedural_sequences: int
    num_frames: int
    seed: int

    def read(self, split: str) -> list[MotionSequence]:
        sequences = FolderMotion(root=self.root, fps=self.fps).read(split)
        require_number(
            "num_procedural_sequences of motion", self.num_procedural_sequences, least=0, whole=True
        )
        if split != "train" or self.num_procedural_sequences == 0:
            return sequences
        procedural = ProceduralMotion(
            num_sequences={"train": self.num_procedural_sequences},
            num_frames=self.num_frames,
            fps=self.fps,
            seed=self.seed,
        )
        return sequences + procedural.read("train")


@dataclass(frozen=True)
class MotionClips:
    """Motion parameters in the z-up world (AMASS's conventions)."""

    poses_rotvec: Float[Tensor, "clip frame 24 3"]
    translation_world_m: Float[Tensor, "clip frame 3"]
    betas: Float[Tensor, "clip beta"]

    @classmethod
    def of_sequence(
        cls, sequence: MotionSequence, start: int, stop: int, device: torch.device
    ) -> "MotionClips":
        """Frames start … stop - 1 of one sequence as a batch of one clip."""
        arrays = (
            sequence.poses_rotvec[start:stop],
            sequence.translation_world_m[start:stop],
            sequence.betas,
        )
        return cls(*(torch.from_numpy(array).float().to(device)[None] for array in arrays))


class MotionLibrary(nn.Module):
    """All sequences of a split, joined end to end on the device; clips are drawn uniformly over their frames.

    Raises:
        ValueError: no sequence is as long as the longest clip asked for.
    """

    poses_rotvec: Tensor
    translation_world_m: Tensor
    betas: Tensor
    first_frames: Tensor
    sequence_ids: Tensor

    def __init__(self, sequences: Sequence[MotionSequence], *, max_clip_frames: int) -> None:
        super().__init__()
        usable = [sequence for sequence in sequences if sequence.num_frames >= max_clip_frames]
        if not usable:
            longest = max((sequence.num_frames for sequence in sequences), default=0)
            raise ValueError(
                f"No sequence has the {max_clip_frames} frames of a clip (the longest of {len(sequences)} "
                f"has {longest}); use shorter clips or longer motion."
            )
        self.num_too_short = len(sequences) - len(usable)
        offsets = np.cumsum([0, *(sequence.num_frames for sequence in usable)])
        starts = [
            np.arange(first, first + sequence.num_frames - max_clip_frames + 1)
            for first, sequence in zip(offsets, usable, strict=False)
        ]
        buffers = {
            "poses_rotvec": np.concatenate([s.poses_rotvec for s in usable]).astype(np.float32),
            "translation_world_m": np.concatenate([s.translation_world_m for s in usable]).astype(np.float32),
            "betas": np.stack([s.betas for s in usable]).astype(np.float32),
            "first_frames": np.concatenate(starts),
            "sequence_ids": np.repeat(np.arange(len(usable)), [len(s) for s in starts]),
        }
        for name, array in buffers.items():
            self.register_buffer(name, torch.from_numpy(array), persistent=False)

    @property
    def num_frames(self) -> int:
        return len(self.poses_rotvec)

    def sample(self, num_clips: int, num_frames: int, generator: torch.Generator) -> MotionClips:
        """Clips of `num_frames` frames, at most `max_clip_frames`, at random places."""
        device = self.poses_rotvec.device
        chosen = torch.randint(len(self.first_frames), (num_clips,), generator=generator, device=device)
        frames = self.first_frames[chosen, None] + torch.arange(num_frames, device=device)
        return MotionClips(
            self.poses_rotvec[frames],
            self.translation_world_m[frames],
            self.betas[self.sequence_ids[chosen]],
        )

    def mean_body_rotmat(self) -> Float[Tensor, "23 3 3"]:
        """Chordal mean of every body joint's rotation over all frames."""
        return mean_rotmat(self.poses_rotvec[:, 1:])


@dataclass(frozen=True, kw_only=True)
class MotionAugmentation:
    """Changes to the motion itself, before any camera sees it.

    Attributes:
        mirror_probability: how often left and right are exchanged.
        reverse_probability: how often time runs backwards.
        betas_std: the shape is drawn anew with this standard deviation (0 keeps the motion's own), limited
            to three of them.
    """

    mirror_probability: float
    reverse_probability: float
    betas_std: float

    def __post_init__(self) -> None:
        for name in ("mirror_probability", "reverse_probability"):
            require_number(f"augmentation.{name}", getattr(self, name), least=0.0, most=1.0)
        require_number("augmentation.betas_std", self.betas_std, least=0.0)

    def __call__(self, clips: MotionClips, generator: torch.Generator) -> MotionClips:
        poses, translation, betas = clips.poses_rotvec, clips.translation_world_m, clips.betas
        num_clips, device = len(poses), poses.device

        def chosen(probability: float, num_dims: int) -> Tensor:
            draws = torch.rand(num_clips, generator=generator, device=device)
            return (draws < probability).reshape(-1, *(1,) * (num_dims - 1))

        # Mirrored in the body's left-right plane; in the world that is the plane x = 0.
        mirrored = mirror_rotvec(poses[:, :, list(SMPL_24.mirror_permutation)])
        mirrored_translation = translation * translation.new_tensor([-1.0, 1.0, 1.0])
        mirror = chosen(self.mirror_probability, 4)
        poses = torch.where(mirror, mirrored, poses)
        translation = torch.where(mirror[..., 0], mirrored_translation, translation)
        reverse = chosen(self.reverse_probability, 4)
        poses = torch.where(reverse, poses.flip(1), poses)
        translation = torch.where(reverse[..., 0], translation.flip(1), translation)
        if self.betas_std > 0:
            drawn = torch.randn(betas.shape, generator=generator, device=device)
            betas = drawn.clamp(-3, 3) * self.betas_std
        return MotionClips(poses, translation, betas)


@dataclass(frozen=True)
class SyntheticClips:
    """What virtual cameras and a virtual detector saw, and what was really there (camera frame).

    `R_cam_world` is from a world with y down.
    """

    keypoints_px: Float[Tensor, "clip frame joint 2"]
    confidence: Float[Tensor, "clip frame joint"]
    K: Float[Tensor, "clip 3 3"]
    image_size: Int[Tensor, "clip 2"]
    parameters_cam: BodyParameters
    points_cam: BodyPoints
    R_cam_world: Float[Tensor, "clip 3 3"]

    def to(self, device: torch.device) -> "SyntheticClips":
        """The same on a device."""
        return SyntheticClips(
            self.keypoints_px.to(device),
            self.confidence.to(device),
            self.K.to(device),
            self.image_size.to(device),
            self.parameters_cam.to(device),
            BodyPoints(self.points_cam.joints_m.to(device), self.points_cam.vertices_m.to(device)),
            self.R_cam_world.to(device),
        )

    def parameters_of(self, clip: int) -> BodyParameters:
        """The true parameters of one clip, batch shape (T,); betas (1, 10)."""
        of_all = self.parameters_cam
        return BodyParameters(
            of_all.root_rotmat[clip], of_all.body_rotmat[clip], of_all.betas[clip], of_all.translation_m[clip]
        )

    def normalised(self) -> tuple[NormalisedClip, MeshTarget]:
        """Network input and target, both in each clip's crop frame."""
        clip = normalise_clip(self.keypoints_px, self.confidence, self.K)
        R_crop_cam = clip.R_crop_cam[:, None]
        parameters = BodyParameters(
            root_rotmat=R_crop_cam @ self.parameters_cam.root_rotmat,
            body_rotmat=self.parameters_cam.body_rotmat,
            betas=self.parameters_cam.betas,
            translation_m=(R_crop_cam @ self.parameters_cam.translation_m[..., None])[..., 0],
        )
        R_cam_crop = R_crop_cam.transpose(-1, -2)
        points = BodyPoints(self.points_cam.joints_m @ R_cam_crop, self.points_cam.vertices_m @ R_cam_crop)
        return clip, MeshTarget(parameters, points.relative_to_pelvis())


class ClipSynthesizer(nn.Module):
    """Puts motion before virtual cameras and a virtual detector.

    Args:
        body: gives skeleton joints and sampled vertices.
        cameras: where from.
        noise: how badly the detector sees; None for perfect keypoints.
    """

    def __init__(
        self, *, body: SupervisedBody, cameras: VirtualCameraSampler, noise: DetectorNoise | None
    ) -> None:
        super().__init__()
        self.body = body
        self.cameras = cameras
        self.noise = noise

    @torch.no_grad()
    def forward(self, clips: MotionClips, generator: torch.Generator) -> SyntheticClips:
        """One still camera per clip."""
        betas = clips.betas[:, None]
        R_ydown_zup = clips.betas.new_tensor(R_YDOWN_ZUP)
        rest_pelvis_m = self.body.body.shape(betas).rest_joints_m[..., 0, :]
        pelvis_world_m = (rest_pelvis_m + clips.translation_world_m) @ R_ydown_zup.T
        cameras = self.cameras.sample(pelvis_world_m, generator)

        rotmat = rotvec_to_rotmat(clips.poses_rotvec)
        pelvis_cam_m = pelvis_world_m @ cameras.R_cam_world.transpose(-1, -2) + cameras.t_cam_world_m[:, None]
        parameters_cam = BodyParameters(
            root_rotmat=(cameras.R_cam_world @ R_ydown_zup)[:, None] @ rotmat[:, :, 0],
            body_rotmat=rotmat[:, :, 1:],
            betas=betas,
            translation_m=pelvis_cam_m - rest_pelvis_m,
        )
        points_cam = self.body(parameters_cam)
        keypoints_px = project(points_cam.joints_m, cameras.K[:, None])
        confidence = torch.ones_like(keypoints_px[..., 0])
        if self.noise is not None:
            keypoints_px, confidence = self.noise(
                keypoints_px, points_cam.joints_m, generator, cameras.image_size
            )
        return SyntheticClips(
            keypoints_px,
            confidence,
            cameras.K,
            cameras.image_size,
            parameters_cam,
            points_cam,
            cameras.R_cam_world,
        )
