"""PyTorch3D's rasteriser: gradients through depth, and through coverage as a soft silhouette.

Camera frames here are x right, y down, z forward; PyTorch3D's view space is x left, y up, z forward.
Its CPU code tests every pixel against every face: seconds per frame at 256 px. It is meant for GPUs.
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from body_models.render.buffers import Fragments

try:
    from pytorch3d.renderer import MeshRasterizer, PerspectiveCameras, RasterizationSettings
    from pytorch3d.structures import Meshes
except ImportError as error:
    raise ModuleNotFoundError(
        f"renderer='pytorch3d' needs PyTorch3D, which cannot be imported here ({error}). PyPI has no wheel "
        "for Linux: build it for the installed torch (a C++ compiler and about 15 minutes) as its installation "
        "page says, https://github.com/facebookresearch/pytorch3d/blob/main/INSTALL.md, or use "
        "renderer='torch', which needs nothing."
    ) from error

# Coverage that a face still adds at the rim of the soft silhouette.
RIM_COVERAGE = 1e-4
# How many faces share in the coverage of one pixel of a soft silhouette.
SOFT_FACES_PER_PIXEL = 32


def rasterize(
    vertices_cam: Float[Tensor, "frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    K: Float[Tensor, "frame 3 3"],
    image_size: tuple[int, int],
    near_m: float,
) -> Fragments:
    """The nearest surface point through every covered pixel centre; arguments as
    `torch_rasterizer.rasterize`.

    `barycentric` and `depth_m` are differentiable with respect to `vertices_cam` and `K`.
    """
    found = _rasterize(
        vertices_cam, faces, K, image_size, z_clip_value=near_m, blur_radius=0.0, faces_per_pixel=1
    )
    return _nearest(found, len(faces), found.pix_to_face[..., 0] >= 0)


def rasterize_soft(
    vertices_cam: Float[Tensor, "frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    K: Float[Tensor, "frame 3 3"],
    image_size: tuple[int, int],
    near_m: float,
    width_px: float,
) -> tuple[Fragments, Float[Tensor, "frame height width"]]:
    """Fragments of the widened silhouette, and its coverage, differentiable with respect to `vertices_cam`
    and `K`.

    A face covers a pixel by sigmoid(−d / σ), with d the signed squared distance between the pixel's centre
    and the face's outline; faces combine as independent chances (Liu et al., Soft Rasterizer, ICCV 2019, eq.
    3 and 6). σ is chosen such that a face's share has fallen to 1e-4 at `width_px` outside it.
    """
    # PyTorch3D measures in units in which the shorter image side spans 2.
    radius = (2 * width_px / min(image_size)) ** 2
    sigma = radius / math.log(1 / RIM_COVERAGE - 1)
    found = _rasterize(
        vertices_cam,
        faces,
        K,
        image_size,
        z_clip_value=near_m,
        blur_radius=radius,
        faces_per_pixel=min(SOFT_FACES_PER_PIXEL, len(faces)),
        clip_barycentric_coords=True,
    )
    present = found.pix_to_face >= 0
    share = torch.sigmoid(-found.dists / sigma) * present
    return _nearest(found, len(faces), present[..., 0]), 1 - (1 - share).prod(-1)


def _rasterize(
    vertices_cam: Float[Tensor, "frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    K: Float[Tensor, "frame 3 3"],
    image_size: tuple[int, int],
    **settings: float | int | bool,
) -> Any:
    if bool((K[:, 0, 1] != 0).any()):
        raise ValueError(
            "PyTorch3D's cameras have no skew, and K has one (K[0, 1] is not 0); use renderer='torch'."
        )
    num_frames = len(vertices_cam)
    view = vertices_cam * vertices_cam.new_tensor([-1.0, -1.0, 1.0])
    cameras = PerspectiveCameras(
        focal_length=torch.stack([K[:, 0, 0], K[:, 1, 1]], dim=-1),
        principal_point=K[:, :2, 2],
        image_size=[image_size] * num_frames,
        in_ndc=False,
        device=view.device,
    )
    meshes = Meshes(verts=list(view), faces=[faces] * num_frames)
    raster_settings = RasterizationSettings(image_size=image_size, perspective_correct=True, **settings)
    return MeshRasterizer(cameras, raster_settings)(meshes)


def _nearest(found: Any, num_faces: int, covered: Tensor) -> Fragments:
    """The first of PyTorch3D's faces per pixel, where `covered`."""
    return Fragments(
        pixel=covered.flatten().nonzero().squeeze(1),
        face=found.pix_to_face[..., 0][covered] % num_faces,
        barycentric=found.bary_coords[..., 0, :][covered],
        depth_m=found.zbuf[..., 0][covered],
    )
