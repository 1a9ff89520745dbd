"""A person's path before a camera, from the 2D–3D pairs of all frames at once.

Frame by frame (`core.camera.solve_translation`) the depth trembles: seventeen keypoints that span a fifth of the
viewing distance say five times less about the distance than about the direction. Bodies do not tremble, so
the path is found together with the knowledge of how people accelerate.

Shapes: T consecutive frames, n points.
"""

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.linalg import solveh_banded
from torch import Tensor

from core.camera import unproject_to_rays

# Standard deviations that weigh the terms against each other. Predicted points are wrong by some centimetres, which
# drowns the detector's pixels; a pelvis accelerates by 2 m/s² in walking and by 5 in running. The speed only has to
# keep the path finite where keypoints say little. Where there are none it is held tighter: a walk that went on for
# many seconds as it was last seen would lead through the camera. (At 1 m/s turns within a second would suffer.)
POINT_STD_M = 0.05
ACCELERATION_STD_M_PER_S2 = 3.0
SPEED_STD_M_PER_S = 10.0
UNSEEN_SPEED_STD_M_PER_S = 2.0

_NUM_BANDS = 7  # of the normal equations: three axes, coupled over two frames


def solve_translation_trajectory(
    points_root_m: Float[Tensor, "frame n 3"],
    keypoints_px: Float[Tensor, "frame n 2"],
    confidence: Float[Tensor, "frame n"],
    K: Float[Tensor, "3 3"],
    *,
    fps: float,
) -> Float[Tensor, "frame 3"]:
    """Translations that put root-relative bodies where their 2D keypoints are, on a smooth path.

    The maximum a posteriori path for the linear equations of `solve_translation` with independent normal errors
    and a normal prior on accelerations (a Kalman smoother's estimate), by one banded solve in float64: time and
    memory grow with T alone. Where keypoints say little, as about depth, the prior smooths more; where
    they are missing, it leads from where the person was last seen to where they are seen next.

    Args:
        points_root_m: (T, n, 3) in the camera's orientation, about any origin.
        keypoints_px: (T, n, 2).
        confidence: (T, n), non-negative weights; 0 leaves a point out.
        K: (3, 3).
        fps: frames per second.

    Returns:
        (T, 3) in metres.

    Raises:
        ValueError: the keypoints do not determine a path, or put the body behind the camera where they are seen.
    """
    points = points_root_m.double().cpu()
    weights = confidence.double().cpu()
    # A zero-weight keypoint may be anything, NaN included.
    keypoints = torch.where(weights[..., None] > 0, keypoints_px.double().cpu(), 0.0)
    rays = unproject_to_rays(keypoints, K.double().cpu())[..., :2]
    target = rays * points[..., 2:] - points[..., :2]

    # One equation per point and image axis: [1, 0, -x; 0, 1, -y] t = target.
    rows = torch.zeros(*rays.shape, 3, dtype=torch.float64)
    rows[..., 0, 0] = rows[..., 1, 1] = 1
    rows[..., 2] = -rays
    precision = weights / POINT_STD_M**2
    normal = torch.einsum("tn,tnai,tnaj->tij", precision, rows, rows)
    right = torch.einsum("tn,tnai,tna->ti", precision, rows, target)

    if not bool(_spread_of_seen(rays, weights).any()):
        raise ValueError(
            "In no frame are two keypoints seen, so the person cannot be placed before the camera."
        )
    seen = (weights.sum(dim=1) > 0).numpy()
    bands = _prior_bands(seen, fps)
    for axis in range(3):
        for other in range(axis, 3):
            bands[_NUM_BANDS - 1 - (other - axis), other::3] += normal[:, axis, other].numpy()
    solved = solveh_banded(bands, right.flatten().numpy()).reshape(-1, 3)
    depth_m = solved[:, 2] + points[..., 2].mean(dim=1).numpy()
    if not (depth_m[seen] > 0).all():
        raise ValueError(
            f"In {int((depth_m[seen] <= 0).sum())} of {int(seen.sum())} frames the person comes to lie behind the "
            "camera: the keypoints do not fit the body; check the camera and the order of the keypoints."
        )
    return torch.from_numpy(solved).to(points_root_m)


def _spread_of_seen(
    rays: Float[Tensor, "frame n 2"], weights: Float[Tensor, "frame n"]
) -> Bool[Tensor, "frame"]:
    """Whether a frame's seen keypoints lie in more than one place, without which it tells no depth."""
    infinite = torch.tensor(math.inf, dtype=rays.dtype)
    seen = weights[..., None] > 0
    least = torch.where(seen, rays, infinite).amin(dim=1)
    most = torch.where(seen, rays, -infinite).amax(dim=1)
    return (most - least > 1e-6).any(dim=-1)


def _prior_bands(seen: Bool[np.ndarray, "frame"], fps: float) -> Float[np.ndarray, "band number"]:
    """The prior's normal matrix over (frame, axis), in the upper banded form of `scipy.linalg.solveh_banded`."""
    num_frames = len(seen)
    speed_std = np.where(seen[1:] & seen[:-1], SPEED_STD_M_PER_S, UNSEEN_SPEED_STD_M_PER_S)
    precisions = (
        (np.array([-1.0, 1.0]), (fps / speed_std) ** 2),
        (
            np.array([1.0, -2.0, 1.0]),
            np.full(max(num_frames - 2, 0), (fps**2 / ACCELERATION_STD_M_PER_S2) ** 2),
        ),
    )
    by_lag = np.zeros((3, num_frames))  # [k, t]: the entry of frames t - k and t
    for stencil, precision in precisions:
        for first in range(len(stencil)):
            for last in range(first, len(stencil)):
                by_lag[last - first, last : last + len(precision)] += (
                    stencil[first] * stencil[last] * precision
                )
    bands = np.zeros((_NUM_BANDS, 3 * num_frames))
    for lag in range(3):
        bands[_NUM_BANDS - 1 - 3 * lag] = np.repeat(by_lag[lag], 3)
    return bands
