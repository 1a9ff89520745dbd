"""Pictures of bodies and keypoints: a framed view of a mesh, an overlay, a skeleton; saved as PNG.

Sizes are (height, width) in pixels. Bodies are in a camera frame: x right, y down, z forward, metres.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from body_models.render import BODY_COLOR, NEAR_M, render
from core.atomic_write import written_whole
from core.camera import PinholeCamera, project, world_to_camera
from core.rotations import rotvec_to_rotmat
from core.skeleton import Skeleton

View = str | float  # "front", "side", "back", or degrees
VIEW_ANGLES_DEG = {"front": 0.0, "side": 90.0, "back": 180.0}

REFERENCE_COLOR = (0.92, 0.84, 0.70)
INK = (38, 43, 51)
FAINT_INK = (112, 120, 132)
BACKDROP_TOP, BACKDROP_BOTTOM = (250, 251, 252), (226, 230, 236)
SIDE_COLORS = {"left": (230, 108, 44), "right": (38, 118, 204), "centre": (74, 84, 98)}

# A long lens from slightly above: little distortion, and the floor shows.
FIELD_OF_VIEW_DEG = 24.0
ELEVATION_DEG = 9.0
MARGIN = 0.08
# Lines and dots are drawn this much larger and then averaged: pillow draws without anti-aliasing.
OVERSAMPLING = 3


def draw_keypoints(
    image: Image.Image,
    keypoints_px: Float[Tensor, "joint 2"],
    confidence: Float[Tensor, " joint"],
    skeleton: Skeleton,
    *,
    line_width_px: float | None = None,
) -> Image.Image:
    """A copy of `image` with the skeleton on it: left orange, right blue, centre grey; the less confident the
    fainter.

    Joints with confidence 0 or without finite coordinates are left out, and so are the bones that end in
    them.

    Args:
        image: the picture that `keypoints_px` are pixels of.
        keypoints_px: counted from the image's edge.
        confidence: 0–1.
        skeleton: names the joints and bones.
        line_width_px: width of the bones; follows the picture's size where None.
    """
    width_px = line_width_px if line_width_px is not None else max(2.0, min(image.size) / 90)
    scale = OVERSAMPLING
    points = (keypoints_px.detach().cpu().double() * scale).tolist()
    shown = (torch.isfinite(keypoints_px).all(-1) & (confidence > 0)).tolist()
    opacity = [round(255 * (0.2 + 0.8 * min(max(value, 0.0), 1.0))) for value in confidence.tolist()]
    overlay = Image.new("RGBA", (image.width * scale, image.height * scale), (255, 255, 255, 0))
    canvas = ImageDraw.Draw(overlay)
    bones = [bone for bone in skeleton.bones if shown[bone[0]] and shown[bone[1]]]

    def dot(joint: int, radius: float, color: tuple[int, int, int, int]) -> None:
        x, y = points[joint]
        canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)

    # A white rim first, under everything: bones stay readable on any picture.
    for parent, child in bones:
        rim = (255, 255, 255, min(opacity[parent], opacity[child]))
        ends = [tuple(points[parent]), tuple(points[child])]
        canvas.line(ends, fill=rim, width=round((width_px + 1.6) * scale))
    for parent, child in bones:
        side = _side(skeleton.joint_names[child])
        side = _side(skeleton.joint_names[parent]) if side == "centre" else side
        color = (*SIDE_COLORS[side], min(opacity[parent], opacity[child]))
        canvas.line([tuple(points[parent]), tuple(points[child])], fill=color, width=round(width_px * scale))
    for joint, name in enumerate(skeleton.joint_names):
        if shown[joint]:
            dot(joint, (1.1 * width_px + 0.8) * scale, (255, 255, 255, opacity[joint]))
            dot(joint, 1.1 * width_px * scale, (*SIDE_COLORS[_side(name)], opacity[joint]))
    overlay = overlay.resize(image.size, Image.Resampling.BOX)
    return Image.alpha_composite(image.convert("RGBA"), overlay).convert("RGB")


def keypoint_picture(
    keypoints_px: Float[Tensor, "joint 2"],
    confidence: Float[Tensor, " joint"],
    skeleton: Skeleton,
    *,
    size: tuple[int, int] = (320, 240),
    crop: "Crop | None" = None,
    label: str | None = None,
) -> Image.Image:
    """The skeleton alone, on an empty backdrop, as large as fits or as `crop` says."""
    crop = Crop.around(keypoints_px, confidence, size) if crop is None else crop
    picture = draw_keypoints(backdrop(size), crop.apply(keypoints_px), confidence, skeleton)
    return picture if label is None else with_label(picture, label)


@dataclass(frozen=True)
class Crop:
    """A window onto an image: what lies in it is shown `scale` times as large.

    Attributes:
        origin_px: the image point (x, y) at the window's upper left corner.
        scale: picture pixels per image pixel.
        size: (height, width) of the picture.
    """

    origin_px: tuple[float, float]
    scale: float
    size: tuple[int, int]

    @classmethod
    def around(
        cls,
        keypoints_px: Float[Tensor, "joint 2"],
        confidence: Float[Tensor, " joint"],
        size: tuple[int, int],
        *,
        scale: float | None = None,
    ) -> "Crop":
        """The window of `size` centred on the visible keypoints; all of them fit, unless `scale` is given."""
        shown = torch.isfinite(keypoints_px).all(-1) & (confidence > 0)
        visible = keypoints_px[shown].detach().cpu().double()
        if len(visible) == 0:
            return cls((0.0, 0.0), 1.0 if scale is None else scale, size)
        low, high = visible.amin(0), visible.amax(0)
        if scale is None:
            room = (1 - 4 * MARGIN) * torch.tensor([size[1], size[0]], dtype=torch.float64)
            scale = float((room / (high - low).clamp_min(1.0)).amin())
        corner = (low + high) / 2 - torch.tensor([size[1], size[0]], dtype=torch.float64) / (2 * scale)
        return cls((float(corner[0]), float(corner[1])), scale, size)

    def apply(self, points_px: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 2"]:
        return (points_px - points_px.new_tensor(self.origin_px)) * self.scale

    def camera(self, camera: PinholeCamera) -> PinholeCamera:
        """The camera whose image is this window of `camera`'s."""
        x, y = self.origin_px
        window = camera.K.new_tensor(
            [[self.scale, 0, -x * self.scale], [0, self.scale, -y * self.scale], [0, 0, 1]]
        )
        return PinholeCamera(window @ camera.K, camera.R_cam_world, camera.t_cam_world_m, self.size)


def framing_distance_m(
    vertices: Float[Tensor, "*frame vertex 3"], view: View = "front", size: tuple[int, int] = (320, 240)
) -> float:
    """The camera distance from which the body fits into the picture; the largest over all frames."""
    flat = vertices.detach().reshape(-1, *vertices.shape[-2:])
    height, width = size
    turned = (flat - _middle(flat)) @ _view_rotation(view, flat).T
    focal_px = _focal_px(size)
    room = 1 - 2 * MARGIN
    wide = turned[..., 0].abs() * focal_px / (room * width / 2)
    tall = turned[..., 1].abs() * focal_px / (room * height / 2)
    return float((torch.maximum(wide, tall) - turned[..., 2]).amax())


def framing_camera(
    vertices: Float[Tensor, "vertex 3"],
    view: View = "front",
    size: tuple[int, int] = (320, 240),
    *,
    distance_m: float | None = None,
) -> PinholeCamera:
    """A camera that looks at the middle of the body, from slightly above.

    Args:
        vertices: camera frame; "front" looks the way that camera looks.
        view: "front", "side", "back", or degrees that the camera walks around the body, counter-clockwise
            from above: "side" (90) sees a person who faces the camera in profile, looking to the left.
        size: (height, width).
        distance_m: from the middle of the body; as near as fits where None.
    """
    if distance_m is None:
        distance_m = framing_distance_m(vertices, view, size)
    return camera_towards(_middle(vertices.detach()[None])[0, 0], view, size, distance_m=distance_m)


def camera_towards(
    target_m: Float[Tensor, "3"], view: View, size: tuple[int, int], *, distance_m: float
) -> PinholeCamera:
    """`framing_camera` for a point that is known, in the camera frame that the bodies are in."""
    R = _view_rotation(view, target_m)
    t = target_m.new_tensor([0.0, 0.0, distance_m]) - R @ target_m
    K = target_m.new_tensor([[1.0, 0, size[1] / 2], [0, 1.0, size[0] / 2], [0, 0, 1]])
    K[0, 0] = K[1, 1] = _focal_px(size)
    return PinholeCamera(K, R, t, size)


def mesh_picture(
    vertices: Float[Tensor, "vertex 3"],
    faces: Int[Tensor, "face 3"],
    *,
    view: View = "front",
    size: tuple[int, int] = (320, 240),
    distance_m: float | None = None,
    colors: Float[Tensor, "vertex 3"] | Sequence[float] | None = None,
    shadow: bool = True,
    label: str | None = None,
    renderer: str = "auto",
) -> Image.Image:
    """The body alone, framed by `framing_camera` (which see), on a backdrop, its shadow on the floor."""
    vertices = vertices.detach()
    camera = framing_camera(vertices, view, size, distance_m=distance_m)
    picture = backdrop(size)
    if shadow:
        picture = with_shadow(picture, vertices, faces, camera)
    colors = BODY_COLOR if colors is None else colors
    picture = _lay_mesh_over(picture, vertices, faces, camera, colors, 1.0, 3, renderer)
    return picture if label is None else with_label(picture, label)


def overlay_picture(
    image: Image.Image,
    vertices: Float[Tensor, "vertex 3"],
    faces: Int[Tensor, "face 3"],
    camera: PinholeCamera,
    *,
    opacity: float = 0.85,
    colors: Float[Tensor, "vertex 3"] | Sequence[float] | None = None,
    supersample: int = 3,
    renderer: str = "auto",
) -> Image.Image:
    """A copy of `image` with the body where `camera` sees it; the camera's image size must be the image's."""
    if camera.image_size != (image.height, image.width):
        raise ValueError(
            f"The camera's image is {camera.image_size} (height, width), the picture "
            f"{(image.height, image.width)}; resize the picture, or take Crop.camera for a window of it."
        )
    colors = BODY_COLOR if colors is None else colors
    return _lay_mesh_over(image, vertices.detach(), faces, camera, colors, opacity, supersample, renderer)


def with_label(picture: Image.Image, label: str, *, font_size: int = 14) -> Image.Image:
    """A copy with a small plate of text in the upper left corner."""
    overlay = Image.new("RGBA", picture.size, (255, 255, 255, 0))
    canvas = ImageDraw.Draw(overlay)
    font = ImageFont.load_default(size=font_size)
    left, top, right, bottom = canvas.textbbox((14, 11), label, font=font)
    canvas.rounded_rectangle((left - 6, top - 5, right + 6, bottom + 5), radius=5, fill=(255, 255, 255, 205))
    canvas.text((14, 11), label, font=font, fill=(*INK, 255))
    return Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB")


def backdrop(size: tuple[int, int]) -> Image.Image:
    """A light studio wall that darkens towards the floor."""
    ramp = np.linspace(0, 1, size[0])[:, None, None] ** 1.5
    wall = np.asarray(BACKDROP_TOP) * (1 - ramp) + np.asarray(BACKDROP_BOTTOM) * ramp
    return Image.fromarray(np.broadcast_to(wall.round().astype(np.uint8), (*size, 3)).copy())


def save_png(image: Image.Image, path: Path | str) -> None:
    """Write `image` as PNG; a reader never sees half a file."""
    with written_whole(path) as file:
        image.save(file, format="PNG")


def with_shadow(
    picture: Image.Image,
    vertices: Float[Tensor, "vertex 3"],
    faces: Int[Tensor, "face 3"],
    camera: PinholeCamera,
    *,
    floor_y_m: float | None = None,
) -> Image.Image:
    """A copy with the body pressed flat onto the floor, dark and blurred.

    Args:
        floor_y_m: height of the floor in the frame of the vertices, y down; under their lowest where None.
    """
    flat = vertices.clone()
    flat[:, 1] = vertices[:, 1].amax() if floor_y_m is None else floor_y_m
    coverage = render(flat, faces, camera).alpha[0].cpu().float().numpy()
    mask = Image.fromarray((coverage * 96).astype(np.uint8))
    mask = mask.filter(ImageFilter.GaussianBlur(picture.height / 55))
    return Image.composite(Image.new("RGB", picture.size, (70, 78, 92)), picture, mask)


def _lay_mesh_over(
    picture: Image.Image,
    vertices: Float[Tensor, "vertex 3"],
    faces: Int[Tensor, "face 3"],
    camera: PinholeCamera,
    colors: Float[Tensor, "vertex 3"] | Sequence[float],
    opacity: float,
    supersample: int,
    renderer: str,
) -> Image.Image:
    left, top, right, bottom = window = _window_around(vertices, camera)
    if left >= right or top >= bottom:
        return picture.copy()
    # A body covers little of a film's frame, and supersampling costs by the pixel.
    crop = Crop((float(left), float(top)), 1.0, (bottom - top, right - left))
    output = render(
        vertices, faces, crop.camera(camera), colors=colors, supersample=supersample, renderer=renderer
    )
    below = torch.from_numpy(np.asarray(picture.crop(window).convert("RGB"), dtype=np.float32) / 255)
    rgb, alpha = output.rgb[0].cpu().float(), output.alpha[0, ..., None].cpu().float()
    above = opacity * rgb + (1 - opacity * alpha) * below
    laid_over = picture.convert("RGB")
    laid_over.paste(Image.fromarray((above.clamp(0, 1) * 255).round().byte().numpy()), (left, top))
    return laid_over


def _window_around(vertices: Float[Tensor, "vertex 3"], camera: PinholeCamera) -> tuple[int, int, int, int]:
    """Left, top, right and bottom pixels of the part of the image that the body is in; all of it where the body
    reaches behind the camera."""
    height, width = camera.image_size
    R, t, K = camera.R_cam_world.cpu(), camera.t_cam_world_m.cpu(), camera.K.cpu()
    vertices_cam_m = world_to_camera(vertices.cpu(), R, t)
    if bool((vertices_cam_m[:, 2] < NEAR_M).any()):  # cut away, so where it would lie says nothing
        return 0, 0, width, height
    points_px = project(vertices_cam_m, K)
    left, top = (points_px.amin(0).floor() - 1).tolist()
    right, bottom = (points_px.amax(0).ceil() + 1).tolist()
    return (
        int(min(max(left, 0), width)),
        int(min(max(top, 0), height)),
        int(min(max(right, 0), width)),
        int(min(max(bottom, 0), height)),
    )


def _view_rotation(view: View, like: Tensor) -> Float[Tensor, "3 3"]:
    """R_view_cam: walk around the vertical axis, then look down by the elevation."""
    if isinstance(view, str) and view not in VIEW_ANGLES_DEG:
        raise ValueError(
            f"There is no view called {view!r}; use {', '.join(VIEW_ANGLES_DEG)}, or an angle in degrees."
        )
    angle_deg = VIEW_ANGLES_DEG[view] if isinstance(view, str) else view
    yaw = rotvec_to_rotmat(like.new_tensor([0.0, math.radians(angle_deg), 0.0]))
    pitch = rotvec_to_rotmat(like.new_tensor([math.radians(ELEVATION_DEG), 0.0, 0.0]))
    return pitch @ yaw


def _focal_px(size: tuple[int, int]) -> float:
    return max(size) / (2 * math.tan(math.radians(FIELD_OF_VIEW_DEG) / 2))


def _middle(vertices: Float[Tensor, "frame vertex 3"]) -> Float[Tensor, "frame 1 3"]:
    return (vertices.amin(1, keepdim=True) + vertices.amax(1, keepdim=True)) / 2


def _side(joint_name: str) -> Literal["left", "right", "centre"]:
    if joint_name.startswith("left_"):
        return "left"
    return "right" if joint_name.startswith("right_") else "centre"
