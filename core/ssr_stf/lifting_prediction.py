"""A detector's keypoints in, 3D joints out."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.camera import assumed_intrinsics
from core.keypoints.frame_rate import at_other_rate
from core.keypoints.track import Track
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
    """

    joints: Float[Tensor, "frame 17 3"]
    unit: str
    pelvis_cam_m: Float[Tensor, "frame 3"] | None
    frame_ids: Int[np.ndarray, "frame"]
    seen: Bool[np.ndarray, "frame"]
    K: Float[Tensor, "3 3"]
    image_size: tuple[int, int]
    fps: float


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

    Args:
        model, clip: of a weights file (`load_lifting_model`), on the device.
        track: in any skeleton; it is converted by name.
        K: intrinsics in edge-counted pixels; None assumes a focal length of the image's diagonal.

    Raises:
        ValueError: the keypoints say too little to place the person before the camera.
    """
    dense = track.dense()
    converted = dense.to_skeleton(H36M_17).track
    image_size = track.assumed_image_size()
    keypoints_px, confidence, K = (
        torch.as_tensor(array, dtype=torch.float32, device=device)
        for array in (
            converted.keypoints_px,
            converted.confidence,
            assumed_intrinsics(image_size) if K is None else K,
        )
    )
    other = at_other_rate(keypoints_px, confidence, track.fps / float(clip["fps"]))
    seen_px, sure = (keypoints_px, confidence) if other is None else (other.keypoints_px, other.confidence)
    joints = lift_sequence(
        model,
        seen_px,
        sure,
        normalisation="screen" if clip["normalisation"] == "screen" else "crop",
        image_size=image_size,
        K=K,
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
        pelvis_cam_m = solve_translation_trajectory(joints, keypoints_px, confidence, K, fps=track.fps)
    return LiftedTrack(
        joints=joints,
        unit=unit,
        pelvis_cam_m=pelvis_cam_m,
        frame_ids=dense.frame_ids,
        seen=np.asarray((dense.confidence > 0).any(axis=1)),
        K=K,
        image_size=image_size,
        fps=track.fps,
    )
