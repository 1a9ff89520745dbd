"""A floor to stand on and a camera that follows: how moving bodies are seen from a side.

Bodies are in the frame of a level camera: x right, y down, z forward, metres.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image
from scipy.ndimage import gaussian_filter1d, grey_closing
from torch import Tensor

from body_models.render.pictures import (
    View,
    backdrop,
    camera_towards,
    framing_distance_m,
    overlay_picture,
    with_shadow,
)
from core.camera import PinholeCamera, unproject_to_rays

# Swings shorter than this the camera does not follow, so its picture is calm.
_FOLLOWING_S = 0.5
# The floor is where the lowest point is, but for what it rises in less than twice this time: it stays below a jump
# and a stride, and gives way to stairs and to a camera that is not level.
_FLOOR_S = 0.5
_TILE_M = 0.5
_FLOOR_SHADE = 0.06
_WIDTH_OF_HEIGHT = 0.75


class ColoredMesh(NamedTuple):
    """One or several bodies as one mesh, colours 0 to 1."""

    vertices: Float[Tensor, "vertex 3"]
    faces: Int[Tensor, "face 3"]
    colors: Float[Tensor, "vertex 3"]


@dataclass(frozen=True)
class Stage:
    """Where the cameras that follow look, frame by frame.

    Attributes:
        target_m: what they look at.
        distance_m: how far they are from it, the same throughout, so that a person who squats looks shorter.
        floor_y_m: y of the floor.
    """

    target_m: Float[np.ndarray, "frame 3"]
    distance_m: float
    floor_y_m: Float[np.ndarray, "frame"]

    @classmethod
    def around(
        cls, low_m: Float[np.ndarray, "frame 3"], high_m: Float[np.ndarray, "frame 3"], *, fps: float
    ) -> "Stage":
        """For a box around all bodies in each frame; it is infinite where nobody is."""
        known = np.flatnonzero(np.isfinite(low_m).all(axis=1))
        every = np.arange(len(low_m))
        low_m, high_m = (
            np.stack([np.interp(every, known, box[known, axis]) for axis in range(3)], axis=1)
            for box in (low_m, high_m)
        )
        target_m = gaussian_filter1d((low_m + high_m) / 2, _FOLLOWING_S * fps, axis=0, mode="nearest")
        lowest_m = grey_closing(high_m[:, 1], size=2 * round(_FLOOR_S * fps) + 1, mode="nearest")
        floor_y_m = gaussian_filter1d(lowest_m, _FLOOR_S * fps, mode="nearest")
        # People turn, so that from whatever side the box is as wide as it is deep.
        radius_m = np.linalg.norm(np.maximum(high_m - target_m, target_m - low_m)[:, [0, 2]], axis=1).max()
        half_height_m = max(float((high_m - target_m)[:, 1].max()), float((target_m - low_m)[:, 1].max()))
        around = ((-radius_m, 0.0), (radius_m, 0.0), (0.0, -radius_m))
        box_m = torch.tensor([[x, y, z] for x, z in around for y in (-half_height_m, half_height_m)])
        return cls(
            target_m,
            framing_distance_m(box_m.float(), "front", stage_size(1000)),
            floor_y_m,
        )


def stage_size(height_px: int) -> tuple[int, int]:
    """(height, width): three quarters as wide as high, rounded to even."""
    return height_px, 2 * round(height_px * _WIDTH_OF_HEIGHT / 2)


def stage_picture(
    stage: Stage,
    frame: int,
    mesh: ColoredMesh | None,
    *,
    view: View,
    height_px: int,
    supersample: int,
    renderer: str,
) -> Image.Image:
    """One frame, of `stage_size`.

    Args:
        frame: of the stage.
        mesh: all bodies in it; None: nobody is there.
        view: as of `framing_camera`.
    """
    size = stage_size(height_px)
    floor_y_m = float(stage.floor_y_m[frame])
    target_m = torch.from_numpy(stage.target_m[frame]).float()
    camera = camera_towards(target_m, view, size, distance_m=stage.distance_m)
    picture = with_tiled_floor(backdrop(size), camera, floor_y_m, reach_m=2 * stage.distance_m)
    if mesh is None:
        return picture
    picture = with_shadow(picture, mesh.vertices, mesh.faces, camera, floor_y_m=floor_y_m)
    return overlay_picture(
        picture,
        mesh.vertices,
        mesh.faces,
        camera,
        opacity=1.0,
        colors=mesh.colors,
        supersample=supersample,
        renderer=renderer,
    )


def with_tiled_floor(
    picture: Image.Image, camera: PinholeCamera, floor_y_m: float, *, reach_m: float
) -> Image.Image:
    """A copy with a floor of square tiles that stand still in the frame of the bodies, fading with the distance.

    Args:
        floor_y_m: y of the floor, y down.
        reach_m: depth at which nothing is left of it.
    """
    height, width = camera.image_size
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    rays = unproject_to_rays(torch.stack([columns, rows], dim=-1).flatten(0, 1), camera.K.cpu())
    R, t = camera.R_cam_world.cpu(), camera.t_cam_world_m.cpu()
    directions = (rays @ R).double().numpy().reshape(height, width, 3)
    eye_m = (-t @ R).double().numpy()
    depth_m = (floor_y_m - eye_m[1]) / np.maximum(
        directions[..., 1], 1e-6
    )  # at the horizon and above: far away
    places = (eye_m[[0, 2]] + depth_m[..., None] * directions[..., [0, 2]]) / _TILE_M
    # Towards the horizon a pixel covers many tiles.
    footprint = np.abs(np.gradient(places, axis=0)) + np.abs(np.gradient(places, axis=1))
    fading = (1 - depth_m / reach_m).clip(0, 1)
    factor = 1 - _FLOOR_SHADE * (1 + _mean_of_checks(places, footprint)) * fading
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64) * factor[..., None]
    return Image.fromarray(pixels.round().astype(np.uint8))


def _mean_of_checks(
    places: Float[np.ndarray, "*pixel 2"], widths: Float[np.ndarray, "*pixel 2"]
) -> Float[np.ndarray, "*pixel"]:
    """A board of unit checks, -1 and 1, averaged over boxes of these widths about these places.

    It is the product of two square waves of period 2, and the mean of one over an interval is the difference of its
    integral, a triangle wave, at the ends.
    """

    def integral(x: np.ndarray) -> np.ndarray:
        return np.abs((x % 2) - 1)

    widths = np.maximum(widths, 1e-6)
    means = (integral(places - widths / 2) - integral(places + widths / 2)) / widths
    return np.prod(means, axis=-1)
