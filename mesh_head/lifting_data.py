"""Motion to clips for lifting: 3D joints of a moving body, seen by virtual cameras and a virtual detector.

What lifting learns from where no recorded keypoints are at hand; the configuration names it, `core` never imports
it.
"""

import numpy as np
import torch
from torch import nn

from body_models.joint_regressors import JointRegressor
from body_models.smpl import SmplBody
from core.camera import VirtualCameraSampler
from core.keypoints.clip import normalise_clip
from core.keypoints.detector_noise import DetectorNoise
from core.random_seeds import seeded_generator
from core.ssr_stf.lifting import InputNormalisation
from core.ssr_stf.lifting_data import LiftingClips, LiftingTestSequence, Unit
from mesh_head.evaluation import MotionEvaluation
from mesh_head.metrics import MM_PER_M
from mesh_head.mixture import MixedData
from mesh_head.motion_data import (
    ClipSynthesizer,
    MotionAugmentation,
    MotionLibrary,
    MotionSource,
)
from mesh_head.supervision import SupervisedBody


class MotionLiftingSource:
    """Lifting data from motion (`core.ssr_stf.lifting_data.LiftingSource`); joints in metres, crop frame.

    Args:
        motion: sequences by split.
        body, regressor: give the 17 joints.
        cameras, noise: see; None for perfect keypoints.
        augmentation: of the motion, in training.
        evaluation: how test motion is cut into stretches, each before a camera of its own.

    Raises:
        ValueError: the data are no motion.
    """

    normalisation: InputNormalisation = "crop"
    unit: Unit = "metre"
    protocol = "motion"

    def __init__(
        self,
        *,
        motion: MotionSource,
        body: SmplBody,
        regressor: JointRegressor,
        cameras: VirtualCameraSampler,
        noise: DetectorNoise | None,
        augmentation: MotionAugmentation,
        evaluation: MotionEvaluation,
    ) -> None:
        if not isinstance(motion, MotionSource) or isinstance(motion, MixedData):
            raise ValueError(
                "clips=virtual_cameras looks at motion (data=procedural, motion, motion_plus_procedural); for a "
                "prepared data set add clips=prepared (mixtures, data=mixed, are for tools/train_mesh.py)."
            )
        self.motion = motion
        self.synthesizer = ClipSynthesizer(
            body=SupervisedBody(body=body, regressor=regressor, num_vertices=1), cameras=cameras, noise=noise
        )
        self.augmentation = augmentation
        self.evaluation = evaluation

    def training_set(self, *, max_clip_frames: int, seed: int) -> "MotionTrainingSet":
        sequences = self.motion.read("train")
        library = MotionLibrary(sequences, max_clip_frames=max_clip_frames)
        return MotionTrainingSet(library, self.synthesizer, self.augmentation, seed, sequences[0].fps)

    def test_sequences(self, split: str) -> list[LiftingTestSequence]:
        """Every stretch of the split's motion; stretches of one sequence share its name."""
        found = []
        sequences = self.motion.read(split)
        for motion, clips in self.evaluation.clips(sequences, self.synthesizer, torch.device("cpu")):
            keypoints_px = clips.keypoints_px[0].numpy()
            height, width = clips.image_size[0].tolist()
            found.append(
                LiftingTestSequence(
                    name=motion.name,
                    action=motion.label,
                    fps=motion.fps,
                    keypoints_px=keypoints_px,
                    confidence=clips.confidence[0].numpy(),
                    image_size=(height, width),
                    K=clips.K[0].numpy(),
                    true_joints_mm=clips.points_cam.joints_m[0].numpy() * np.float32(MM_PER_M),
                    mm_per_unit=np.full(len(keypoints_px), MM_PER_M),
                    evaluated=np.ones(len(keypoints_px), np.bool_),
                )
            )
        return found


class MotionTrainingSet(nn.Module):
    """Clips made anew for every batch, on the module's device (`core.ssr_stf.lifting_data.LiftingTrainingSet`)."""

    def __init__(
        self,
        library: MotionLibrary,
        synthesizer: ClipSynthesizer,
        augmentation: MotionAugmentation,
        seed: int,
        fps: float,
    ) -> None:
        super().__init__()
        self.fps = fps
        self.library = library
        self.synthesizer = synthesizer
        self.augmentation = augmentation
        self.seed = seed

    @property
    def num_too_short(self) -> int:
        return self.library.num_too_short

    def clips(self, *, batch_size: int, num_frames: int, step: int) -> LiftingClips:
        generator = seeded_generator(self.seed, step, device=self.library.poses_rotvec.device)
        motion = self.augmentation(self.library.sample(batch_size, num_frames, generator), generator)
        seen = self.synthesizer(motion, generator)
        clip = normalise_clip(seen.keypoints_px, seen.confidence, seen.K)
        joints_m = seen.points_cam.relative_to_pelvis().joints_m
        return LiftingClips(clip.keypoints, joints_m @ clip.R_crop_cam[:, None].transpose(-1, -2))
