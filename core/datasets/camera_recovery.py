"""A camera from 2D–3D pairs: for data sets that keep the pixels and the world's joints, but not the cameras."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

# Pairs used; more add time and no accuracy (a parameter's error falls with their root, and is far below a pixel).
_MOST_PAIRS = 20_000
# Where the robust loss turns from squares to absolutes, px: about the spread of a good detector's errors.
_ROBUST_SCALE_PX = 3.0
_MIN_PAIRS = 30
# Points are in one plane where their smallest extent is below this share of the largest.
_FLAT = 1e-6


@dataclass(frozen=True)
class RecoveredCamera:
    """A pinhole camera with lens distortion, and how well it explains the pairs.

    Attributes:
        K: (3, 3) without skew, pixels.
        R_cam_world: (3, 3).
        t_cam_world: (3,) in the unit of the world.
        distortion: (5,) k1, k2, k3, p1, p2 of `distort`.
        residual_px: Median distance between keypoints and projections.
    """

    K: Float[np.ndarray, "3 3"]
    R_cam_world: Float[np.ndarray, "3 3"]
    t_cam_world: Float[np.ndarray, "3"]
    distortion: Float[np.ndarray, "5"]
    residual_px: float

    def world_to_camera(self, points_world: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 3"]:
        """In the unit of the world, float64."""
        return np.asarray(points_world, np.float64) @ self.R_cam_world.T + self.t_cam_world

    def project(self, points_world: Float[np.ndarray, "*batch 3"]) -> Float[np.ndarray, "*batch 2"]:
        """Pixels, with the lens's distortion."""
        points_cam = self.world_to_camera(points_world)
        rays = distort(points_cam[..., :2] / points_cam[..., 2:], self.distortion)
        return rays @ self.K[:2, :2].T + self.K[:2, 2]


def distort(
    rays: Float[np.ndarray, "*batch 2"], distortion: Float[np.ndarray, "5"]
) -> Float[np.ndarray, "*batch 2"]:
    """Human3.6M's lens: r (1 + k1 ρ² + k2 ρ⁴ + k3 ρ⁶ + p·r) + (p2, p1) ρ², for r = (X, Y) / Z and ρ = |r|.

    Source: the camera model of the Human3.6M toolbox, as VideoPose3D projects its 2D ground truth.
    """
    square = np.square(rays).sum(-1, keepdims=True)
    radial = 1 + square * (distortion[0] + square * (distortion[1] + square * distortion[2]))
    tangential = (rays * distortion[3:]).sum(-1, keepdims=True)
    return rays * (radial + tangential) + distortion[3:] * square


def recover_camera(
    points_world: Float[np.ndarray, "point 3"], keypoints_px: Float[np.ndarray, "point 2"], what: str
) -> RecoveredCamera:
    """Intrinsics, pose and distortion that project the points onto the keypoints.

    The direct linear transformation with normalised coordinates (Hartley and Zisserman, Multiple View Geometry,
    section 7.1) begins; robust non-linear least squares over focal lengths, principal point, pose and distortion
    ends. All in float64. Exact pairs give an exact camera; of a detector's keypoints the errors average out.

    Args:
        points_world: Of at least 30 points, not in one plane, in any unit.
        keypoints_px: Their pixels.
        what: Which camera; begins the sentence of an error.

    Raises:
        ValueError: If there are too few pairs, or no camera in front of the points explains them.
    """
    from scipy.optimize import least_squares
    from scipy.spatial.transform import Rotation

    step = max(1, len(points_world) // _MOST_PAIRS)
    world = np.asarray(points_world[::step], np.float64)
    pixels = np.asarray(keypoints_px[::step], np.float64)
    if len(world) < _MIN_PAIRS:
        raise ValueError(f"{what}: {len(world)} 2D–3D pairs are too few to recover a camera.")
    centre, scale = world.mean(0), float(world.std())
    if scale == 0:
        raise ValueError(f"{what}: all 3D joints lie in one place, so that no camera can be recovered.")
    normalised = (world - centre) / scale
    spans = np.linalg.svd(normalised, compute_uv=False)
    if spans[2] < _FLAT * spans[0]:
        raise ValueError(
            f"{what}: all 3D joints lie in one plane, so that no camera can be recovered; is a coordinate missing?"
        )
    unexplained = f"{what}: no camera explains the 2D keypoints of these 3D joints; is an axis mirrored?"
    try:
        K, R, t = _decompose(_direct_linear_transformation(normalised, pixels))
    except np.linalg.LinAlgError as error:
        raise ValueError(unexplained) from error
    if not (np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0):
        raise ValueError(unexplained)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        points = normalised @ Rotation.from_rotvec(parameters[4:7]).as_matrix().T + parameters[7:10]
        # A trial step may put a point behind the camera; a bounded ray keeps the search finite.
        rays = np.clip(points[:, :2] / np.maximum(points[:, 2:], 1e-3), -10, 10)
        return ((distort(rays, parameters[10:]) * parameters[:2] + parameters[2:4]) - pixels).ravel()

    start = np.concatenate(
        [[K[0, 0], K[1, 1], K[0, 2], K[1, 2]], Rotation.from_matrix(R).as_rotvec(), t, np.zeros(5)]
    )
    # First without the lens, which overfits before the pose is right.
    pinhole = least_squares(
        lambda p: residuals(np.concatenate([p, np.zeros(5)])),
        start[:10],
        loss="soft_l1",
        f_scale=_ROBUST_SCALE_PX,
        x_scale="jac",
        max_nfev=100,
    ).x
    fit = least_squares(
        residuals,
        np.concatenate([pinhole, np.zeros(5)]),
        loss="soft_l1",
        f_scale=_ROBUST_SCALE_PX,
        x_scale="jac",
        max_nfev=200,
        ftol=1e-14,
        xtol=1e-14,
        gtol=1e-14,
    ).x
    R = Rotation.from_rotvec(fit[4:7]).as_matrix()
    depths = normalised @ R[2] + fit[9]
    if np.median(depths) <= 0 or fit[:2].min() <= 0:
        raise ValueError(unexplained)
    return RecoveredCamera(
        K=np.array([[fit[0], 0.0, fit[2]], [0.0, fit[1], fit[3]], [0.0, 0.0, 1.0]]),
        R_cam_world=R,
        t_cam_world=fit[7:10] * scale - R @ centre,
        distortion=fit[10:],
        residual_px=float(np.median(np.linalg.norm(residuals(fit).reshape(-1, 2), axis=-1))),
    )


def _direct_linear_transformation(
    points: Float[np.ndarray, "point 3"], pixels: Float[np.ndarray, "point 2"]
) -> Float[np.ndarray, "3 4"]:
    """The projection matrix with the least algebraic error, up to scale and sign."""
    mean, spread = pixels.mean(0), max(float(pixels.std()), 1e-9)
    x, y = ((pixels - mean) / spread).T[..., None]
    homogeneous = np.concatenate([points, np.ones((len(points), 1))], axis=1)
    zero = np.zeros_like(homogeneous)
    rows = np.concatenate(
        [
            np.concatenate([homogeneous, zero, -x * homogeneous], axis=1),
            np.concatenate([zero, homogeneous, -y * homogeneous], axis=1),
        ]
    )
    _, vectors = np.linalg.eigh(rows.T @ rows)
    normalised = vectors[:, 0].reshape(3, 4)
    back = np.array([[spread, 0, mean[0]], [0, spread, mean[1]], [0, 0, 1]])
    P = back @ normalised
    depths = homogeneous @ P[2]
    return P if np.median(depths) > 0 else -P


def _decompose(
    P: Float[np.ndarray, "3 4"],
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """K with positive diagonal, R and t of P = s K [R | t], s > 0."""
    from scipy.linalg import rq

    K, R = rq(P[:, :3])
    signs = np.sign(np.diag(K))
    signs[signs == 0] = 1
    K, R = K * signs, signs[:, None] * R
    t = np.linalg.solve(K, P[:, 3])
    if np.linalg.det(R) < 0:  # a mirrored fit: the search begins from the nearest rotation
        u, _, vt = np.linalg.svd(R)
        R = u @ np.diag([1.0, 1.0, -1.0]) @ vt
    return K / K[2, 2], R, t
