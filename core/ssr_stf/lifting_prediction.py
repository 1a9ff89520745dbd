"""A detector's keypoints in, 3D joints out."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.gravity import Level
from core.keypoints.frame_rate import at_other_rate
from core.keypoints.gaps import across_gaps
from core.keypoints.track import Track, TrackInput, naming_person
from core.skeleton import H36M_17
from core.ssr_stf.lifting import LiftingModel, lift_sequence
from core.trajectory import solve_translation_trajectory
from core.weights import ClipFormat


@dataclass(frozen=True, kw_only=True)
class LiftedTrack:
    """A person's H36M_17 joints through a video, in the camera's axes: x right, y down, z forward.

    Attributes:
        joints: relative to the pelvis.
        unit: of the joints, "metre" or "half image width" (MotionBERT's 2.5D space).
        pelvis_cam_m: where the pelvis is before the camera; None where the unit is no metre.
        frame_ids: video frame of each.
        seen: whether the detector saw any joint in that frame; others are filled from their neighbours.
        K, image_size: the camera, assumed or given.
        fps: frames per second.
        level: how the camera stands.
    """

    joints: Float[Tensor, "frame 17 3"]
    unit: str
    pelvis_cam_m: Float[Tensor, "frame 3"] | None
    frame_ids: Int[np.ndarray, "frame"]
    seen: Bool[np.ndarray, "frame"]
    K: Float[Tensor, "3 3"]
    image_size: tuple[int, int]
    fps: float
    level: Level = field(default_factory=Level)


def lift_track(
    model: LiftingModel,
    clip: ClipFormat,
    track: Track,
    K: Float[Tensor, "3 3"] | None = None,
    *,
    mirror_test: bool,
    device: torch.device,
) -> LiftedTrack:
    """Joints for every frame from the track's first to its last, by overlapped windows, blended.

    Through gaps the model sees straight lines (`core.keypoints.gaps`).

    Args:
        model, clip: of a weights file (`load_lifting_model`), on the device.
        track: in any skeleton; it is converted by name.
        K: intrinsics in edge-counted pixels; None assumes a focal length of the image's diagonal.

    Raises:
        ValueError: the keypoints say too little to place the person, whom it names, before the camera.
    """
    given = TrackInput.of(track, H36M_17, K, dtype=torch.float32, device=device)
    keypoints_px, confidence = across_gaps(given.keypoints_px, given.confidence)
    other = at_other_rate(keypoints_px, confidence, track.fps / float(clip["fps"]))
    if other is not None:
        keypoints_px, confidence = other.keypoints_px, other.confidence
    joints = lift_sequence(
        model,
        keypoints_px,
        confidence,
        normalisation="screen" if clip["normalisation"] == "screen" else "crop",
        image_size=given.image_size,
        K=given.K,
        window_frames=int(clip["num_frames"]),
        windows="overlapped",
        mirror_test=mirror_test,
    )
    if other is not None:
        joints = torch.lerp(
            joints[other.back.before], joints[other.back.after], other.back.share[:, None, None]
        )
    unit = str(clip.get("unit", "metre"))
    pelvis_cam_m = None
    if unit == "metre":
        with naming_person(track):
            pelvis_cam_m = solve_translation_trajectory(
                joints, given.keypoints_px, given.confidence, given.K, fps=track.fps
            )
    return LiftedTrack(
        joints=joints,
        unit=unit,
        pelvis_cam_m=pelvis_cam_m,
        frame_ids=given.frame_ids,
        seen=given.seen,
        K=given.K,
        image_size=given.image_size,
        fps=track.fps,
    )


def levelled(
    tracks: Sequence[LiftedTrack], camera_pitch_deg: int | float | None, *, one_camera: bool = True
) -> list[LiftedTrack]:
    """The people of one video with how its camera stands: given, or with None judged by them (`core.gravity`).

    `one_camera`: whether all are before one; else each is before one of their own.

    Raises:
        ValueError: `camera_pitch_deg` is no number from -90 to 90.
    """
    joints = [track.joints[track.seen].cpu() for track in tracks]
    levels = Level.of_people(camera_pitch_deg, joints, one_camera=one_camera)
    return [replace(track, level=level) for track, level in zip(tracks, levels, strict=True)]
