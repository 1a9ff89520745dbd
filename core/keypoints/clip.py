"""Keypoint clips as the network sees them: one crop rotation and one scale per clip, and the way back.

Shapes: clip B, frame T, joint J.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from core.camera import look_at_rotation, unproject_to_rays

# A standing person's joints lie on average this fraction of half the person's height from their centre, so
# that head top and ankles come to lie near ±1.
_MEAN_JOINT_DISTANCE = 0.5
# Smallest scale, in units of the focal length: a person of half a pixel at f = 5000 px.
_MIN_SCALE = 1e-4
# Keypoints further than 84° from the crop's axis cannot be drawn on its plane and count as unseen.
_MIN_FORWARD = 0.1
# Repetitions of the robust means.
_ROUNDS = 2


@dataclass(frozen=True)
class NormalisedClip:
    """Clips of keypoints on a plane in front of the person.

    Attributes:
        keypoints: (x, y, confidence); x right, y down, a standing person about from -1 to 1. Unseen joints
            (confidence 0) have x = y = 0.
        R_crop_cam: Rotation from the camera to the crop frame, whose z axis points at the person's centre. A
            network that sees only the crop predicts orientations in it: R_crop_body = R_crop_cam R_cam_body.
        scale: Size of one unit of x and y at depth 1 (tangent of the angle it spans).
    """

    keypoints: Float[Tensor, "clip frame joint 3"]
    R_crop_cam: Float[Tensor, "clip 3 3"]
    scale: Float[Tensor, "clip"]


def normalise_clip(
    keypoints_px: Float[Tensor, "clip frame joint 2"],
    confidence: Float[Tensor, "clip frame joint"],
    K: Float[Tensor, "clip 3 3"],
) -> NormalisedClip:
    """Turns each clip towards its person and scales it, without regard to image size and focal length.

    Centre and scale are confidence-weighted means over all joints and frames, with the pull of a keypoint
    limited to that of one three times the mean distance away: a few wild ones hardly move either. A clip
    without a single seen joint keeps the camera's frame and scale 1, and is all zeros.

    Args:
        keypoints_px: (B, T, J, 2), pixels from the image's edge. Unseen ones may be anything, NaN too.
        confidence: (B, T, J) in [0, 1].
        K: (B, 3, 3) intrinsics of each clip.
    """
    num_clips, num_frames, num_joints, _ = keypoints_px.shape
    weight = confidence.reshape(num_clips, -1)
    is_seen = weight > 0
    points_px = torch.where(is_seen[..., None], keypoints_px.reshape(num_clips, -1, 2), 0.0)

    rays = unproject_to_rays(points_px, K)
    centre = _robust_centre(rays[..., :2], weight)
    R_crop_cam = look_at_rotation(torch.cat([centre, torch.ones_like(centre[:, :1])], dim=-1))
    crop_rays = rays @ R_crop_cam.transpose(-1, -2)
    is_seen = is_seen & (crop_rays[..., 2] > _MIN_FORWARD * rays.norm(dim=-1))
    weight = torch.where(is_seen, weight, 0.0)
    on_plane = crop_rays[..., :2] / torch.where(is_seen, crop_rays[..., 2], 1.0)[..., None]

    scale = _robust_mean(_length(on_plane), weight) / _MEAN_JOINT_DISTANCE
    scale = torch.where(is_seen.any(dim=1), scale.clamp(min=_MIN_SCALE), 1.0)
    xy = torch.where(is_seen[..., None], on_plane / scale[:, None, None], 0.0)
    keypoints = torch.cat([xy, weight[..., None]], dim=-1)
    return NormalisedClip(keypoints.reshape(num_clips, num_frames, num_joints, 3), R_crop_cam, scale)


def denormalise(clip: NormalisedClip, K: Float[Tensor, "clip 3 3"]) -> Float[Tensor, "clip frame joint 2"]:
    """Pixels of a normalised clip: the inverse of `normalise_clip` for every seen joint.

    Unseen joints, at x = y = 0, come back as the pixel of the crop's centre.
    """
    num_clips, num_frames, num_joints, _ = clip.keypoints.shape
    xy = clip.keypoints[..., :2].reshape(num_clips, -1, 2) * clip.scale[:, None, None]
    crop_rays = torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
    rays = crop_rays @ clip.R_crop_cam
    points_px = (rays / rays[..., 2:]) @ K.transpose(-1, -2)
    return points_px[..., :2].reshape(num_clips, num_frames, num_joints, 2)


def _length(vectors: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch"]:
    # The tiny term keeps the gradient finite at 0, where unseen joints lie.
    return (vectors.square().sum(dim=-1) + 1e-16).sqrt()


def _robust_centre(points: Float[Tensor, "clip point 2"], weight: Float[Tensor, "clip point"]) -> Tensor:
    """Weighted mean in which far points weigh less, by the ratio of `_limit` to their distance from it."""
    centre = _weighted_mean(points, weight[..., None])
    for _ in range(_ROUNDS):
        with torch.no_grad():
            distance = _length(points - centre[:, None])
            pull = (_limit(distance, weight) / distance).clamp(max=1.0)
        centre = _weighted_mean(points, (weight * pull)[..., None])
    return centre


def _robust_mean(values: Float[Tensor, "clip point"], weight: Float[Tensor, "clip point"]) -> Tensor:
    """Weighted mean of non-negative values, those beyond `_limit` cut down to it."""
    return _weighted_mean(torch.minimum(values, _limit(values.detach(), weight)), weight)


def _limit(values: Float[Tensor, "clip point"], weight: Float[Tensor, "clip point"]) -> Tensor:
    """(clip, 1): 3 times the mean of the values that are themselves so limited, after a few rounds.

    Nearly as robust as a median while less than a third of the values are wild, and several times cheaper.
    """
    limit = 3 * _weighted_mean(values, weight)[:, None]
    for _ in range(_ROUNDS):
        limit = 3 * _weighted_mean(torch.minimum(values, limit), weight)[:, None]
    return limit


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Over dimension 1; 0 where there is no weight."""
    return (weight * values).sum(dim=1) / weight.sum(dim=1).clamp(min=1e-9)
