"""Pinhole cameras: projection, translation from 2D–3D pairs, crop rotations, virtual cameras for training.

Camera frame: x right, y down, z forward, metres. Pixels count from the image's edge, so that the centre of
the first pixel is (0.5, 0.5) and the middle of the image is (width / 2, height / 2).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.settings import require_number, require_range

# A z-up world (motion files) to a y-down one: what a level camera sees that looks along the world's +y.
R_YDOWN_ZUP = ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0), (0.0, 1.0, 0.0))
# Either to the y-up one of mesh viewers, z towards the viewer, who looks where that camera does.
R_YUP_YDOWN = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))
R_YUP_ZUP = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))
# Nothing visible is nearer to a camera; keeps projection and its gradient finite for points at the lens.
_MIN_DEPTH_M = 0.01


@dataclass(frozen=True)
class PinholeCamera:
    """Cameras with one image size and any leading batch shape.

    Attributes:
        K: Intrinsics, pixels counted from the image's edge.
        R_cam_world: Rotation from world to camera.
        t_cam_world_m: x_cam = R_cam_world x_world + t_cam_world_m.
        image_size: (height, width) in pixels.
    """

    K: Float[Tensor, "*batch 3 3"]
    R_cam_world: Float[Tensor, "*batch 3 3"]
    t_cam_world_m: Float[Tensor, "*batch 3"]
    image_size: tuple[int, int]

    def world_to_camera(self, points_world_m: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n 3"]:
        return world_to_camera(points_world_m, self.R_cam_world, self.t_cam_world_m)


def world_to_camera(
    points_world_m: Float[Tensor, "*#batch n 3"],
    R_cam_world: Float[Tensor, "*#batch 3 3"],
    t_cam_world_m: Float[Tensor, "*#batch 3"],
) -> Float[Tensor, "*#batch n 3"]:
    """x_cam = R_cam_world x_world + t_cam_world_m, for n points per camera."""
    return points_world_m @ R_cam_world.transpose(-1, -2) + t_cam_world_m[..., None, :]


def project(
    points_cam_m: Float[Tensor, "*#batch n 3"], K: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*#batch n 2"]:
    """Perspective projection to pixels (..., n, 2).

    Points nearer than 1 cm, or behind the camera, are projected as if they were 1 cm in front of it: finite,
    but meaningless. Whoever may have such points looks at their depth.
    """
    depth = points_cam_m[..., 2:].clamp(min=_MIN_DEPTH_M)
    rays = torch.cat([points_cam_m[..., :2] / depth, torch.ones_like(depth)], dim=-1)
    return (rays @ K.transpose(-1, -2))[..., :2]


def unproject_to_rays(
    points_px: Float[Tensor, "*#batch n 2"], K: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*#batch n 3"]:
    """Viewing rays (..., n, 3) with z = 1 in the camera frame; skew is honoured."""
    y = (points_px[..., 1] - K[..., 1, 2, None]) / K[..., 1, 1, None]
    x = (points_px[..., 0] - K[..., 0, 2, None] - K[..., 0, 1, None] * y) / K[..., 0, 0, None]
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def solve_translation(
    points_root_m: Float[Tensor, "*batch n 3"],
    keypoints_px: Float[Tensor, "*batch n 2"],
    confidence: Float[Tensor, "*batch n"],
    K: Float[Tensor, "*#batch 3 3"],
    *,
    degenerate: Literal["raise", "nan"] = "raise",
) -> Float[Tensor, "*batch 3"]:
    """Translation that puts a root-relative body where its 2D keypoints are, in closed form.

    With the ray (x, y, 1) of a keypoint and its point (X, Y, Z), a perfect translation t fulfils
    t_x − x t_z = x Z − X and t_y − y t_z = y Z − Y: linear in t. The confidence-weighted least squares
    solution (direct linear transformation; Hartley and Zisserman, section 4.1, with the rotation known)
    minimises the sum of confidence × (depth × error in the image plane)². Exact where the data are; float64
    inside; differentiable.

    Args:
        points_root_m: (..., n, 3) in the camera's orientation, about any origin.
        keypoints_px: (..., n, 2).
        confidence: (..., n), non-negative weights; 0 leaves a point out.
        K: (..., 3, 3).
        degenerate: What becomes of an item that has no answer: fewer than two distinct keypoints with
            confidence > 0, or a solution that puts the body behind the camera. "raise" a ValueError, or
            return "nan" for that item alone.

    Returns:
        (..., 3) in metres.

    Raises:
        ValueError: For a degenerate item, where `degenerate` is "raise".
    """
    points, weights = points_root_m.double(), confidence.double()
    weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    # A zero-weight keypoint may be anything, NaN included.
    keypoints = torch.where(weights[..., None] > 0, keypoints_px.double(), 0.0)
    rays = unproject_to_rays(keypoints, K.double())[..., :2]
    target = rays * points[..., 2:] - points[..., :2]

    # Centred on the weighted means, t_z is a one-variable regression and t_x, t_y follow from the means.
    mean_ray = (weights[..., None] * rays).sum(dim=-2)
    mean_target = (weights[..., None] * target).sum(dim=-2)
    centred_ray, centred_target = rays - mean_ray[..., None, :], target - mean_target[..., None, :]
    spread = (weights[..., None] * centred_ray.square()).sum(dim=(-2, -1))
    covariance = (weights[..., None] * centred_ray * centred_target).sum(dim=(-2, -1))

    # 1e-12: all keypoints within a millionth of the focal length of each other.
    is_spread = spread > 1e-12
    t_z = -covariance / torch.where(is_spread, spread, 1.0)
    t_xy = mean_target + mean_ray * t_z[..., None]
    translation = torch.cat([t_xy, t_z[..., None]], dim=-1)

    in_front = t_z + (weights * points[..., 2]).sum(dim=-1) > 0
    is_good = is_spread & in_front
    if degenerate == "nan":
        translation = torch.where(is_good[..., None], translation, torch.nan)
    elif not bool(is_good.all()):
        raise ValueError(
            f"The translation of {int((~is_good).sum())} of {is_good.numel()} bodies cannot be solved: "
            f"{int((~is_spread).sum())} have fewer than two distinct keypoints with confidence above 0, and "
            f"{int((is_spread & ~in_front).sum())} come to lie behind the camera. "
            "Leave those frames out, or pass degenerate='nan'."
        )
    return translation.to(points_root_m.dtype)


def look_at_rotation(direction: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """R_crop_cam (..., 3, 3) that turns `direction` (camera frame) onto +z without rolling.

    The crop's x axis stays in the camera's x–z plane, so horizontals in the middle of the crop stay
    horizontal. Straight up or down, where that does not determine it, the x axis is kept.

    Args:
        direction: (..., 3), any length but 0.
    """
    z_axis = torch.nn.functional.normalize(direction, dim=-1)
    zero, one = torch.zeros_like(z_axis[..., 0]), torch.ones_like(z_axis[..., 0])
    horizontal = torch.stack([z_axis[..., 2], zero, -z_axis[..., 0]], dim=-1)  # y_cam × z_axis
    is_vertical = horizontal.square().sum(dim=-1, keepdim=True) < 1e-12
    x_axis = torch.where(is_vertical, torch.stack([one, zero, zero], dim=-1), horizontal)
    x_axis = torch.nn.functional.normalize(x_axis, dim=-1)
    y_axis = torch.linalg.cross(z_axis, x_axis, dim=-1)
    return torch.stack([x_axis, y_axis, z_axis], dim=-2)


def assumed_intrinsics(image_size: tuple[int, int]) -> Float[Tensor, "3 3"]:
    """K for an image (height, width) of an unknown camera: the focal length is the diagonal.

    A diagonal field of view of 53°, the usual assumption for in-the-wild pictures (Kissos et al., Beyond Weak
    Perspective for Monocular 3D Human Pose Estimation, ECCV Workshops 2020).
    """
    height, width = image_size
    if height <= 0 or width <= 0:
        raise ValueError(f"An image size (height, width) must be positive, not {image_size}.")
    focal = math.hypot(height, width)
    return torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


@dataclass(frozen=True)
class VirtualCameras:
    """One still camera per clip.

    Attributes:
        K: Intrinsics, pixels counted from the image's edge.
        R_cam_world: From a y-down world to the camera.
        t_cam_world_m: x_cam = R_cam_world x_world + t_cam_world_m.
        image_size: (height, width) per clip, pixels.
    """

    K: Float[Tensor, "clip 3 3"]
    R_cam_world: Float[Tensor, "clip 3 3"]
    t_cam_world_m: Float[Tensor, "clip 3"]
    image_size: Int[Tensor, "clip 2"]


@dataclass(frozen=True, kw_only=True)
class VirtualCameraSampler:
    """Draws the cameras that training clips are seen by. Ranges are (low, high), uniform between them.

    Attributes:
        image_sizes: (height, width) choices, equally likely.
        person_height_fraction: Height of a standing 1.7 m person over the image's shorter side. With the
            focal length it sets the distance, so that near and wide-angle go together as they do in practice.
        fov_deg: Field of view along the longer side.
        pitch_deg: How far the camera looks down; negative = up.
        pitch_concentration: 1 = pitch uniform over its range; larger = nearer to level.
        roll_std_deg: Standard deviation of the roll.
        off_centre: The person's centre lies at most this fraction of half the image from its middle.
        min_depth_m: No pelvis of a clip comes nearer to the camera.
    """

    image_sizes: tuple[tuple[int, int], ...] = (
        (1080, 1920),
        (1920, 1080),
        (720, 1280),
        (1000, 1000),
        (640, 480),
    )
    person_height_fraction: tuple[float, float] = (0.3, 1.0)
    fov_deg: tuple[float, float] = (25.0, 70.0)
    pitch_deg: tuple[float, float] = (-10.0, 35.0)
    pitch_concentration: float = 2.0
    roll_std_deg: float = 3.0
    off_centre: float = 0.4
    min_depth_m: float = 1.5

    def __post_init__(self) -> None:
        # Farther off the middle people leave the picture.
        require_number("cameras.off_centre", self.off_centre, least=0.0, most=0.9)
        require_number("cameras.pitch_concentration", self.pitch_concentration, above=0.0)
        require_number("cameras.roll_std_deg", self.roll_std_deg, least=0.0)
        require_number("cameras.min_depth_m", self.min_depth_m, above=0.0)
        require_range("cameras.person_height_fraction", self.person_height_fraction, above=0.0)
        require_range("cameras.fov_deg", self.fov_deg, above=0.0, below=180.0)
        require_range("cameras.pitch_deg", self.pitch_deg, above=-90.0, below=90.0)
        if not _are_image_sizes(self.image_sizes):
            raise ValueError(
                "cameras.image_sizes must be one or more pairs [height,width] of whole numbers of at least 1, as "
                f"in [[1080,1920],[640,480]], not {self.image_sizes}."
            )

    def sample(
        self, trajectory_world_m: Float[Tensor, "clip frame 3"], generator: torch.Generator
    ) -> VirtualCameras:
        """Draws a camera per clip, at any azimuth around the person.

        Args:
            trajectory_world_m: (clip, frame, 3) pelvis in a y-down world. One frame, the centre, will do;
                with all of them the camera steps back until the whole path is in front of it and in view.
            generator: Source of all randomness, on the trajectory's device.
        """
        num_clips = trajectory_world_m.shape[0]
        device, dtype = trajectory_world_m.device, trajectory_world_m.dtype

        def uniform(bounds: tuple[float, float]) -> Float[Tensor, "clip"]:
            low, high = bounds
            return low + (high - low) * torch.rand(num_clips, generator=generator, device=device, dtype=dtype)

        choice = torch.randint(len(self.image_sizes), (num_clips,), generator=generator, device=device)
        image_size = torch.tensor(self.image_sizes, device=device)[choice]
        height, width = image_size.to(dtype).unbind(dim=-1)
        focal = torch.maximum(height, width) / (2 * torch.tan(torch.deg2rad(uniform(self.fov_deg)) / 2))
        zero, one = torch.zeros_like(focal), torch.ones_like(focal)
        K = torch.stack([focal, zero, width / 2, zero, focal, height / 2, zero, zero, one], dim=-1)
        K = K.reshape(num_clips, 3, 3)

        R_cam_world = _roll_pitch_azimuth(
            roll=torch.deg2rad(
                self.roll_std_deg * torch.randn(num_clips, generator=generator, device=device, dtype=dtype)
            ),
            pitch=torch.deg2rad(self._sample_pitch_deg(uniform((0.0, 1.0)))),
            azimuth=uniform((-math.pi, math.pi)),
        )

        offset = torch.stack([uniform((-self.off_centre, self.off_centre)) for _ in range(2)], dim=-1)
        centre_px = torch.stack([width, height], dim=-1) / 2 * (1 + offset)
        centre_ray = unproject_to_rays(centre_px[:, None], K)[:, 0]
        distance = focal * 1.7 / (uniform(self.person_height_fraction) * torch.minimum(height, width))

        centre_world = trajectory_world_m.mean(dim=1)
        around_centre = (trajectory_world_m - centre_world[:, None]) @ R_cam_world.transpose(-1, -2)
        sideways, nearer = around_centre[..., :2], -around_centre[..., 2:]
        # The least distance d for which every |ray d + sideways| ≤ edge (d − nearer), in both axes.
        edge = 0.95 * (torch.stack([width, height], dim=-1) / 2 / focal[:, None])[:, None]
        ray = centre_ray[:, None, :2]
        in_view = torch.maximum(
            (sideways + edge * nearer) / (edge - ray), (edge * nearer - sideways) / (edge + ray)
        )
        distance = torch.maximum(distance, in_view.amax(dim=(1, 2)))
        distance = torch.maximum(distance, self.min_depth_m + nearer.amax(dim=(1, 2)))
        t_cam_world = centre_ray * distance[:, None] - (R_cam_world @ centre_world[..., None])[..., 0]
        return VirtualCameras(K=K, R_cam_world=R_cam_world, t_cam_world_m=t_cam_world, image_size=image_size)

    def _sample_pitch_deg(self, uniform_01: Float[Tensor, "clip"]) -> Float[Tensor, "clip"]:
        low, high = self.pitch_deg
        # The shares of the range on either side of what is nearest to level are kept; within either side the
        # power pulls towards it.
        level = min(max(0.0, low), high)
        share_up = (level - low) / max(high - low, 1e-9)
        down = (uniform_01 - share_up).clamp(min=0) / max(1 - share_up, 1e-9)
        up = (share_up - uniform_01).clamp(min=0) / max(share_up, 1e-9)
        power = self.pitch_concentration
        return level + (high - level) * down**power + (low - level) * up**power


def _are_image_sizes(value: object) -> bool:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        return False
    if not all(isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2 for size in value):
        return False
    numbers = [pixels for size in value for pixels in size]
    return all(isinstance(pixels, int) and not isinstance(pixels, bool) and pixels >= 1 for pixels in numbers)


def _roll_pitch_azimuth(
    roll: Float[Tensor, "clip"], pitch: Float[Tensor, "clip"], azimuth: Float[Tensor, "clip"]
) -> Float[Tensor, "clip 3 3"]:
    """R_cam_world in a y-down world: turned by `azimuth`, looking down by `pitch`, then rolled (radians)."""
    zero = torch.zeros_like(azimuth)
    forward = torch.stack(
        [torch.sin(azimuth) * torch.cos(pitch), torch.sin(pitch), torch.cos(azimuth) * torch.cos(pitch)],
        dim=-1,
    )
    right = torch.stack([torch.cos(azimuth), zero, -torch.sin(azimuth)], dim=-1)
    down = torch.linalg.cross(forward, right, dim=-1)
    cos, sin = torch.cos(roll)[:, None], torch.sin(roll)[:, None]
    return torch.stack([cos * right + sin * down, -sin * right + cos * down, forward], dim=-2)
