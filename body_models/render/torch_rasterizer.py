"""A z-buffer in plain torch: no GL, no compiler, CPU and GPU, all frames of a batch at once.

The classical scan-line algorithm (Foley et al., Computer Graphics, 2nd ed., §3.6 and §15.4), with both of its
loops turned into ragged index arithmetic:

    faces → the pixel rows each one crosses → on each row, the span of pixel centres inside → z-buffer

A span runs between the two edges that cross the row, half-open on the right as rows are at the bottom, and
an edge's crossing is computed from its upper end alone, by whichever face owns it. Two faces that share an
edge therefore get the same number bit for bit: every pixel centre of a closed surface belongs to exactly one
of them, without gaps and without doubles, whatever the rounding.

Visibility is found without gradient. Depth and barycentric weights of the visible points are then computed
again from the camera-frame corners, in a form that autograd follows: depth is differentiable, coverage is
not.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from body_models.render.buffers import Fragments

# Barycentric weights of points on an edge may leave [0, 1] by rounding; those of slivers thinner than a
# rounding error may be anything. The first must pass (a clamp would cut their gradient), the second must not.
WEIGHT_TOLERANCE = 1e-3
# The packed z-buffer key gives 31 bits to the depth and 32 to the face.
MAX_FACES = 2**31 - 1


def rasterize(
    vertices_cam: Float[Tensor, "frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    K: Float[Tensor, "frame 3 3"],
    image_size: tuple[int, int],
    near_m: float,
) -> Fragments:
    """The nearest surface point through every covered pixel centre.

    Args:
        vertices_cam: camera frame (x right, y down, z forward), metres.
        faces: corner indices; either winding, both sides are seen.
        K: intrinsics in pixels that count from the image's edge.
        image_size: (height, width).
        near_m: what lies nearer is cut away; faces that cross this plane are clipped, not dropped.

    Returns:
        Fragments ordered by pixel. `barycentric` and `depth_m` are differentiable with respect to
        `vertices_cam` and `K`.
    """
    with torch.no_grad():
        corners, flat_face = _project_faces(vertices_cam, faces, K, near_m)
        pixel, flat_face = _visible_faces(corners, flat_face, len(faces), len(vertices_cam), image_size)
        frame = pixel // (image_size[0] * image_size[1])
        face = flat_face - frame * len(faces)
    barycentric, depth_m = _intersect(vertices_cam, faces, K, image_size, pixel, frame, face)
    return Fragments(pixel, face, barycentric, depth_m)


def _project_faces(
    vertices_cam: Float[Tensor, "frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    K: Float[Tensor, "frame 3 3"],
    near_m: float,
) -> tuple[Float[Tensor, "3 3 triangle"], Int[Tensor, " triangle"]]:
    """Triangles in front of the near plane as (corner, (u px, v px, 1/z), triangle), and frame · F + face of
    each.

    The triangle index comes last so that every later step is arithmetic on contiguous arrays.
    """
    x, y, z = vertices_cam.unbind(-1)
    in_front = z >= near_m
    projected = _to_pixels(x, y, z.clamp_min(near_m), K[:, None])
    corner_ids = faces.T.contiguous()
    corners = torch.stack([channel[:, corner_ids].transpose(0, 1).flatten(1) for channel in projected], dim=1)
    flat_face = torch.arange(corners.shape[-1], device=faces.device)
    if bool(in_front.all()):
        return corners, flat_face

    num_in_front = in_front[:, corner_ids].sum(1).flatten()
    whole = (num_in_front == 3).nonzero().squeeze(1)
    parts, ids = [corners[..., whole]], [flat_face[whole]]
    for count in (1, 2):
        crossing = (num_in_front == count).nonzero().squeeze(1)
        frame, face = crossing // len(faces), crossing % len(faces)
        triangles = vertices_cam[frame[:, None], faces[face]]
        for clipped in _clip_to_near_plane(triangles, near_m, count):
            u, v, inverse_z = _to_pixels(clipped[..., 0], clipped[..., 1], clipped[..., 2], K[frame, None])
            parts.append(torch.stack([u, v, inverse_z]).permute(2, 0, 1))
            ids.append(crossing)
    return torch.cat(parts, dim=-1), torch.cat(ids)


def _to_pixels(
    x: Float[Tensor, "*#points"],
    y: Float[Tensor, "*#points"],
    z: Float[Tensor, "*points"],
    K: Float[Tensor, "*#points 3 3"],
) -> tuple[Float[Tensor, "*points"], Float[Tensor, "*points"], Float[Tensor, "*points"]]:
    inverse_z = 1 / z
    a, b = x * inverse_z, y * inverse_z
    return K[..., 0, 0] * a + K[..., 0, 1] * b + K[..., 0, 2], K[..., 1, 1] * b + K[..., 1, 2], inverse_z


def _clip_to_near_plane(
    triangles: Float[Tensor, "triangle 3 3"], near_m: float, num_in_front: int
) -> list[Float[Tensor, "triangle 3 3"]]:
    """The part of each triangle beyond the near plane: one triangle, or two where two corners are there."""
    # Turn each triangle so that the corner that stands alone on its side comes first; the winding stays.
    alone = (triangles[..., 2] >= near_m) == (num_in_front == 1)
    first = alone.int().argmax(-1, keepdim=True)
    order = (first + torch.arange(3, device=triangles.device)) % 3
    apex, second, third = triangles.gather(1, order[..., None].expand(-1, -1, 3)).unbind(1)

    def cut(front: Tensor, behind: Tensor) -> Tensor:
        # Always from the corner in front: both owners of an edge must get the same point, bit for bit.
        fraction = (near_m - front[:, 2:]) / (behind[:, 2:] - front[:, 2:])
        point = front + fraction * (behind - front)
        return torch.cat([point[:, :2], torch.full_like(point[:, 2:], near_m)], dim=1)

    if num_in_front == 1:
        return [torch.stack([apex, cut(apex, second), cut(apex, third)], dim=1)]
    cut_second, cut_third = cut(second, apex), cut(third, apex)
    return [
        torch.stack([cut_second, second, third], dim=1),
        torch.stack([cut_second, third, cut_third], dim=1),
    ]


def _visible_faces(
    corners: Float[Tensor, "3 3 triangle"],
    flat_face: Int[Tensor, " triangle"],
    num_faces: int,
    num_frames: int,
    image_size: tuple[int, int],
) -> tuple[Int[Tensor, " fragment"], Int[Tensor, " fragment"]]:
    """The covered pixels, in order, and the nearest of `flat_face` at each; the lower index wins a tie."""
    height, width = image_size
    (xa, ya, wa), (xb, yb, wb), (xc, yc, wc) = _sort_by_row(corners)

    # Rows whose centres lie in [ya, yc), and faces that have a pixel centre in both directions (NaN compares
    # false).
    left = torch.minimum(torch.minimum(xa, xb), xc)
    right = torch.maximum(torch.maximum(xa, xb), xc)
    first_row = _first_centre_from(ya, height)
    end_row = _first_centre_from(yc, height)
    kept = (
        (end_row > first_row) & (_first_centre_from(right, width) > _first_centre_from(left, width))
    ).nonzero()
    kept = kept.squeeze(1)
    xa, ya, wa, xb, yb, wb, xc, yc, wc, first_row, end_row = (
        values.index_select(0, kept) for values in (xa, ya, wa, xb, yb, wb, xc, yc, wc, first_row, end_row)
    )
    flat_face = flat_face.index_select(0, kept)
    frame = flat_face // num_faces

    # One entry per (face, row). Slopes of level edges are infinite, but no row ever lies on a level edge.
    first_row = first_row.long()
    triangle, row = _expand_ranges(first_row, end_row.long() - first_row)
    centre = row.to(xa.dtype) + 0.5
    long_x, long_w = _cross_edge(centre, triangle, xa, ya, wa, xc, yc, wc)
    lower = centre >= yb.index_select(0, triangle)
    # The short side: edge a–b above corner b, edge b–c from there on, addressed as one list of both.
    short = triangle + lower * len(xa)
    short_x, short_w = _cross_edge(
        centre,
        short,
        *(torch.cat(ends) for ends in ((xa, xb), (ya, yb), (wa, wb), (xb, xc), (yb, yc), (wb, wc))),
    )

    # One entry per (face, row, column): pixel centres in [left, right) of the row.
    is_long_left = long_x <= short_x
    left = torch.minimum(long_x, short_x)
    right = torch.maximum(long_x, short_x)
    w_left = torch.where(is_long_left, long_w, short_w)
    w_slope = (torch.where(is_long_left, short_w, long_w) - w_left) / (right - left)
    first_column = _first_centre_from(left, width).long()
    span, column = _expand_ranges(first_column, _first_centre_from(right, width).long() - first_column)
    offset = column.to(left.dtype) + 0.5 - left.index_select(0, span)
    inverse_z = w_left.index_select(0, span) + offset * w_slope.index_select(0, span)
    row_start = (frame.index_select(0, triangle) * height + row) * width
    pixel = row_start.index_select(0, span) + column
    face = flat_face.index_select(0, triangle).index_select(0, span)

    # Bits of a positive float grow with it: the largest key is the largest 1/z, then the lowest face.
    key = (inverse_z.float().view(torch.int32).long() << 32) | (MAX_FACES - face)
    buffer = torch.zeros(num_frames * height * width, dtype=torch.int64, device=corners.device)
    buffer.scatter_reduce_(0, pixel, key, "amax")
    covered = buffer.nonzero().squeeze(1)
    return covered, MAX_FACES - (buffer.index_select(0, covered) & 0xFFFFFFFF)


Corner = tuple[Tensor, ...]  # (u px, v px, 1/z), each over all triangles


def _sort_by_row(corners: Float[Tensor, "3 3 triangle"]) -> tuple[Corner, Corner, Corner]:
    """The three corners of each triangle from the topmost to the lowest."""
    top, middle, low = (tuple(corner.unbind(0)) for corner in corners.unbind(0))

    def ordered(first: Corner, second: Corner) -> tuple[Corner, Corner]:
        swap = first[1] > second[1]
        pairs = [
            (torch.where(swap, b, a), torch.where(swap, a, b)) for a, b in zip(first, second, strict=True)
        ]
        upper, below = zip(*pairs, strict=True)
        return upper, below

    top, middle = ordered(top, middle)
    middle, low = ordered(middle, low)
    top, middle = ordered(top, middle)
    return top, middle, low


def _first_centre_from(position_px: Float[Tensor, " n"], size: int) -> Float[Tensor, " n"]:
    """Index of the first pixel whose centre is at or beyond `position_px`, limited to 0 … size."""
    return (position_px - 0.5).ceil_().clamp_(0, size)


def _expand_ranges(
    start: Int[Tensor, " n"], count: Int[Tensor, " n"]
) -> tuple[Int[Tensor, " total"], Int[Tensor, " total"]]:
    """The ranges start[i] … start[i] + count[i] − 1 one after the other, as (i, value) pairs."""
    end = count.cumsum(0)
    total = int(end[-1]) if len(end) else 0
    owner = torch.repeat_interleave(count, output_size=total)
    value = torch.arange(total, device=start.device) + (start - end + count).index_select(0, owner)
    return owner, value


def _cross_edge(
    centre: Float[Tensor, " row"],
    edge: Int[Tensor, " row"],
    x_top: Float[Tensor, " edge"],
    y_top: Float[Tensor, " edge"],
    w_top: Float[Tensor, " edge"],
    x_low: Float[Tensor, " edge"],
    y_low: Float[Tensor, " edge"],
    w_low: Float[Tensor, " edge"],
) -> tuple[Float[Tensor, " row"], Float[Tensor, " row"]]:
    """Where (x, 1/z) the edge of each row crosses that row's centre line."""
    height = y_low - y_top
    x_slope, w_slope = (x_low - x_top) / height, (w_low - w_top) / height
    offset = centre - y_top.index_select(0, edge)
    x = x_top.index_select(0, edge) + offset * x_slope.index_select(0, edge)
    w = w_top.index_select(0, edge) + offset * w_slope.index_select(0, edge)
    return x, w


def _intersect(
    vertices_cam: Float[Tensor, "frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    K: Float[Tensor, "frame 3 3"],
    image_size: tuple[int, int],
    pixel: Int[Tensor, " fragment"],
    frame: Int[Tensor, " fragment"],
    face: Int[Tensor, " fragment"],
) -> tuple[Float[Tensor, "fragment 3"], Float[Tensor, " fragment"]]:
    """Barycentric weights and depth where the ray through each pixel centre meets the plane of its face.

    With the ray direction d = (dx, dy, 1), corner i stands off the ray by q_i = p_i − z_i d, and its weight
    is the area spanned by the other two corners' offsets. No division by z: corners behind the camera are
    fine.
    """
    height, width = image_size
    column, row = pixel % width, pixel // width % height
    frame_K = K.index_select(0, frame) if len(K) > 1 else K
    dy = (row + 0.5 - frame_K[:, 1, 2]) / frame_K[:, 1, 1]
    dx = (column + 0.5 - frame_K[:, 0, 2] - frame_K[:, 0, 1] * dy) / frame_K[:, 0, 0]

    # (corner, fragment) throughout: arithmetic on contiguous arrays.
    vertex = faces.T.index_select(1, face) + frame * vertices_cam.shape[1]
    channels = vertices_cam.reshape(-1, 3).T
    x, y, z = (channel.index_select(0, vertex.flatten()).reshape(3, -1) for channel in channels)
    qx, qy = x - z * dx, y - z * dy
    area = torch.stack([qx[i - 2] * qy[i - 1] - qx[i - 1] * qy[i - 2] for i in range(3)])
    total = area[0] + area[1] + area[2]
    weights = area / torch.where(total == 0, torch.ones_like(total), total)
    weights = weights.clamp(-WEIGHT_TOLERANCE, 1 + WEIGHT_TOLERANCE)
    # A face of no area has no weights: its middle stands for it.
    weights = torch.where(total == 0, torch.full_like(weights, 1 / 3), weights)
    weights = weights / (weights[0] + weights[1] + weights[2])
    depth_m = weights[0] * z[0] + weights[1] * z[1] + weights[2] * z[2]
    return weights.T, depth_m
