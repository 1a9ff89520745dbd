"""Lambert shading of visible surface points: a key light, a fill light and a sky-to-ground ambient."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from body_models.render.buffers import Fragments

# Of a normal, in m⁴: of a triangle with sides of a micrometre.
_LEAST_SQUARE = 1e-24
BODY_COLOR = (0.70, 0.79, 0.90)


@dataclass(frozen=True)
class Light:
    """Lights that stand with the camera; directions (camera frame: x right, y down, z forward) point the way
    the light travels and need not be normalised; intensities are what a white surface facing the light
    shows."""

    key_direction: tuple[float, float, float] = (0.6, 0.7, 0.75)
    key_intensity: float = 0.72
    fill_direction: tuple[float, float, float] = (-0.9, 0.1, 0.5)
    fill_intensity: float = 0.25
    sky_intensity: float = 0.42
    ground_intensity: float = 0.24


def vertex_normals(
    vertices: Float[Tensor, "frame vertex 3"], faces: Int[Tensor, "face 3"]
) -> Float[Tensor, "frame vertex 3"]:
    """Unit normals, the mean of the adjacent faces' weighted by area; zero at a vertex without area around
    it.

    They point to the side from which the corners run counter-clockwise.
    """
    normals = _area_normals(vertices, faces)
    # Per channel and (frame, vertex) in one line: several times faster than adding rows of three.
    num_frames, num_vertices, _ = vertices.shape
    first_vertex = torch.arange(num_frames, device=faces.device)[:, None, None] * num_vertices
    owner = (first_vertex + faces).flatten()
    total = torch.stack(
        [
            vertices.new_zeros(num_frames * num_vertices).scatter_add(0, owner, channel.repeat_interleave(3))
            for channel in normals.reshape(-1, 3).T
        ],
        dim=-1,
    ).reshape(vertices.shape)
    return total * _inverse_length(total.square().sum(-1, keepdim=True))


def shade_fragments(
    fragments: Fragments,
    vertices_cam: Float[Tensor, "frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    colors: Float[Tensor, "#frame #vertex 3"],
    light: Light,
    image_size: tuple[int, int],
) -> Float[Tensor, "fragment 3"]:
    """Colours in 0–1 of the visible points, with smooth normals; a face seen from behind is lit as if turned.

    Args:
        fragments: of frames with `image_size` = (height, width).
        vertices_cam: camera frame, metres.
        faces: corner indices.
        colors: per vertex, in 0–1; dimensions of size 1 are shared.
        light: in the camera frame.
    """
    frame = fragments.frame(image_size)
    num_vertices = vertices_cam.shape[1]
    corner_ids = faces.T.index_select(1, fragments.face)
    weights = fragments.barycentric.T
    packed_ids = (corner_ids + frame * num_vertices).flatten()

    def interpolate(values: Tensor, ids: Tensor) -> list[Tensor]:
        """One array per channel: arithmetic on contiguous memory."""
        corners = (channel.index_select(0, ids).reshape(3, -1) for channel in values.reshape(-1, 3).T)
        return [weights[0] * a + weights[1] * b + weights[2] * c for a, b, c in corners]

    x, y, z = interpolate(vertex_normals(vertices_cam, faces), packed_ids)
    # The camera sees a face's front where its normal points against the ray to any of its corners.
    towards = (_area_normals(vertices_cam, faces) * vertices_cam[:, faces[:, 0]]).sum(-1).flatten()
    side = torch.where(towards.index_select(0, frame * len(faces) + fragments.face) > 0, -1.0, 1.0).to(
        x.dtype
    )
    inverse_length = side * _inverse_length(x * x + y * y + z * z)
    x, y, z = x * inverse_length, y * inverse_length, z * inverse_length

    def lambert(direction: tuple[float, float, float], intensity: float) -> Tensor:
        length = sum(component**2 for component in direction) ** 0.5
        dx, dy, dz = (-component / length * intensity for component in direction)
        return (x * dx + y * dy + z * dz).clamp_min(0)

    sky_share = 0.5 - 0.5 * y
    received = (
        light.ground_intensity
        + (light.sky_intensity - light.ground_intensity) * sky_share
        + lambert(light.key_direction, light.key_intensity)
        + lambert(light.fill_direction, light.fill_intensity)
    )
    if colors.shape[1] > 1:
        per_vertex = colors.expand(len(vertices_cam), -1, -1)
        surface = interpolate(per_vertex, packed_ids)
    else:
        surface = list(colors[:, 0].expand(len(vertices_cam), 3).index_select(0, frame).T)
    return torch.stack([(channel * received).clamp(0, 1) for channel in surface], dim=-1)


def _inverse_length(square: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """1 / √square; 0 where the cube of that, which the gradient takes, would not be finite."""
    is_long = square > _LEAST_SQUARE
    return torch.where(is_long, torch.where(is_long, square, 1).rsqrt(), 0)


def _area_normals(
    vertices: Float[Tensor, "frame vertex 3"], faces: Int[Tensor, "face 3"]
) -> Float[Tensor, "frame face 3"]:
    """Face normals with a length of twice the area."""
    a, b, c = (vertices.index_select(1, faces[:, corner]) for corner in range(3))
    return torch.linalg.cross(b - a, c - a)
