"""One way to see a mesh, three renderers behind it, none of which is imported before it is chosen.

The camera and pixel rule that all of them keep is written down in docs/rendering.md.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor

from body_models.render.buffers import RenderOutput, face_ids_to_image, scatter_to_image
from body_models.render.shading import BODY_COLOR, Light, shade_fragments
from core.camera import PinholeCamera, world_to_camera
from core.settings import require_number, require_threads

__all__ = ["BODY_COLOR", "Light", "RenderOutput", "concatenate_meshes", "render", "require_renderer"]

NEAR_M = 0.05
RENDERERS = ("auto", "torch", "pytorch3d", "pyrender")


def render(
    vertices: Float[Tensor, "*frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    camera: PinholeCamera,
    *,
    renderer: str = "auto",
    colors: Float[Tensor, "*#frame #vertex 3"] | Sequence[float] | None = None,
    light: Light | None = None,
    supersample: int = 1,
    soft_silhouette_px: float | None = None,
    near_m: float = NEAR_M,
    num_threads: int | None = None,
) -> RenderOutput:
    """Render a mesh, or a batch of poses of one mesh, through pinhole cameras.

    Args:
        vertices: (V, 3) or (B, V, 3), world frame, metres.
        faces: (F, 3) corner indices; surfaces are seen from both sides. Several people: `concatenate_meshes`.
        camera: one for all frames, or one per frame; several cameras and one mesh give one frame per camera.
        renderer: "torch" (depth differentiable), "pytorch3d" (depth and soft coverage differentiable) or
            "pyrender" (OpenGL, no gradients). "auto" is torch; pytorch3d where `soft_silhouette_px` is given.
        colors: 0–1; one colour, (V, 3), or (B, V, 3).
        light: in the camera frame; the default is a soft studio light.
        supersample: samples per pixel edge for rgb and alpha. depth_m and face_id always belong to the
            pixel's centre.
        soft_silhouette_px: how far outside the silhouette alpha falls to zero, in pixels; makes alpha
            differentiable with respect to the vertices (Liu et al., Soft Rasterizer, ICCV 2019).
        near_m: surfaces nearer to the camera are cut away; a face that crosses this plane is clipped.
        num_threads: CPU threads of torch during this call; None means one. The arrays are too small to gain
            much from more, and on a busy machine threads that wait for each other lose far more than that.

    Raises:
        ValueError: shapes that do not fit together, coordinates that are not finite, or options that the
            chosen renderer does not have.
        ModuleNotFoundError, RuntimeError: the chosen renderer is not usable here; says what to do about it.
    """
    _check_options(renderer, supersample, soft_silhouette_px, near_m, num_threads)
    vertices_cam, K, image_size = _into_camera_frame(vertices, camera)
    faces = _check_faces(faces, vertices_cam)
    surface = _broadcast_colors(colors, vertices_cam)
    light = Light() if light is None else light
    if renderer == "auto":
        renderer = "torch" if soft_silhouette_px is None else "pytorch3d"

    if renderer == "pyrender":
        from body_models.render import pyrender_backend

        return pyrender_backend.draw(vertices_cam, faces, K, image_size, surface, light, supersample, near_m)
    if renderer == "pytorch3d":
        from body_models.render import pytorch3d_backend

        rasterize = pytorch3d_backend.rasterize
    else:
        from body_models.render import torch_rasterizer

        rasterize = torch_rasterizer.rasterize

    num_frames = len(vertices_cam)
    with _limited_threads(num_threads if num_threads is not None else 1, vertices_cam.device):
        fragments = rasterize(vertices_cam, faces, K, image_size, near_m)
        depth_m = scatter_to_image(fragments.depth_m, fragments.pixel, num_frames, image_size)
        face_id = face_ids_to_image(fragments, num_frames, image_size)

        if soft_silhouette_px is not None:
            fragments, alpha = pytorch3d_backend.rasterize_soft(
                vertices_cam, faces, K, image_size, near_m, soft_silhouette_px
            )
            rgb = shade_fragments(fragments, vertices_cam, faces, surface, light, image_size)
            rgb = scatter_to_image(rgb, fragments.pixel, num_frames, image_size) * alpha[..., None]
            return RenderOutput(rgb, alpha, depth_m, face_id)

        fine_size = (image_size[0] * supersample, image_size[1] * supersample)
        if supersample > 1:
            # Pixels count from the edge, so a finer grid only scales K.
            fine_K = K * K.new_tensor([supersample, supersample, 1])[:, None]
            fragments = rasterize(vertices_cam, faces, fine_K, fine_size, near_m)
        rgb = shade_fragments(fragments, vertices_cam, faces, surface, light, fine_size)
        rgb = scatter_to_image(rgb, fragments.pixel, num_frames, fine_size)
        alpha = scatter_to_image(torch.ones_like(fragments.depth_m), fragments.pixel, num_frames, fine_size)
        if supersample > 1:
            rgb, alpha = (
                _mean_of_blocks(rgb, supersample),
                _mean_of_blocks(alpha[..., None], supersample)[..., 0],
            )
    return RenderOutput(rgb, alpha, depth_m, face_id)


def require_renderer(renderer: str) -> None:
    """Draws one triangle, so that a renderer that cannot be used is found out before the work and not after it.

    Raises:
        ValueError: says what is missing and what to do about it.
    """
    triangle = torch.tensor([[-1.0, -1.0, 2.0], [1.0, -1.0, 2.0], [0.0, 1.0, 2.0]])
    K = torch.tensor([[4.0, 0.0, 4.0], [0.0, 4.0, 4.0], [0.0, 0.0, 1.0]])
    camera = PinholeCamera(K, torch.eye(3), torch.zeros(3), (8, 8))
    try:
        render(triangle, torch.tensor([[0, 1, 2]]), camera, renderer=renderer)
    except (ImportError, RuntimeError, OSError) as error:
        raise ValueError(str(error)) from error


def concatenate_meshes(
    vertices: Sequence[Float[Tensor, "*frame _ 3"]], faces: Sequence[Int[Tensor, "_ 3"]]
) -> tuple[Float[Tensor, "*frame vertex 3"], Int[Tensor, "face 3"]]:
    """One mesh out of several, such as several people in one picture; face indices are shifted to match."""
    if len(vertices) != len(faces) or not vertices:
        raise ValueError(
            f"Meshes need one face list per vertex list; got {len(vertices)} and {len(faces)}. "
            "Repeat the faces for people who share them."
        )
    shifted, offset = [], 0
    for person_vertices, person_faces in zip(vertices, faces, strict=True):
        shifted.append(person_faces + offset)
        offset += person_vertices.shape[-2]
    return torch.cat(list(vertices), dim=-2), torch.cat(shifted)


def _check_options(
    renderer: str, supersample: int, soft_silhouette_px: float | None, near_m: float, num_threads: int | None
) -> None:
    if renderer not in RENDERERS:
        raise ValueError(f"There is no renderer called {renderer!r}; choose one of {', '.join(RENDERERS)}.")
    require_number("supersample", supersample, least=1, whole=True)
    require_number("near_m", near_m, above=0.0)
    if num_threads is not None:
        require_threads("num_threads", num_threads)
    if soft_silhouette_px is None:
        return
    if renderer not in ("auto", "pytorch3d"):
        raise ValueError(
            f"renderer={renderer!r} has no soft silhouette; use renderer='pytorch3d' or leave it on 'auto'."
        )
    if soft_silhouette_px <= 0:
        raise ValueError(f"soft_silhouette_px must be a positive width; got {soft_silhouette_px}.")
    if supersample > 1:
        raise ValueError("A soft silhouette is already smooth: use it with supersample=1.")


def _into_camera_frame(
    vertices: Float[Tensor, "*frame vertex 3"], camera: PinholeCamera
) -> tuple[Float[Tensor, "frame vertex 3"], Float[Tensor, "frame 3 3"], tuple[int, int]]:
    """Vertices in the camera frame and K for every frame, both with one frame dimension."""
    if vertices.ndim not in (2, 3) or camera.K.ndim not in (2, 3):
        raise ValueError(
            "render takes vertices (V, 3) or (B, V, 3) and a camera with at most one batch dimension; got "
            f"vertices {tuple(vertices.shape)} and K {tuple(camera.K.shape)}. Flatten people and time "
            "into one dimension."
        )
    if not bool(torch.isfinite(vertices).all()):
        raise ValueError("The vertices to render contain NaN or infinity; look at the step that made them.")
    batch = vertices if vertices.ndim == 3 else vertices[None]
    K, R, t = (
        value.to(vertices) if value.ndim == ndim else value.to(vertices)[None]
        for value, ndim in ((camera.K, 3), (camera.R_cam_world, 3), (camera.t_cam_world_m, 2))
    )
    sizes = {len(batch), len(K)} - {1}
    if len(sizes) > 1:
        raise ValueError(
            f"{len(batch)} frames of vertices do not fit {len(K)} cameras; give one camera, or one per frame."
        )
    are_finite = all(bool(torch.isfinite(part).all()) for part in (K, R, t))
    if not are_finite or not bool((K[:, [0, 1], [0, 1]] > 0).all()):
        raise ValueError("The camera's K, R and t must be finite, and its focal lengths above 0.")
    num_frames = sizes.pop() if sizes else 1
    vertices_cam = world_to_camera(batch, R, t).expand(num_frames, -1, -1)
    return vertices_cam, K.expand(num_frames, 3, 3), camera.image_size


def _check_faces(
    faces: Int[Tensor, "face 3"], vertices_cam: Float[Tensor, "frame vertex 3"]
) -> Int[Tensor, "face 3"]:
    num_vertices = vertices_cam.shape[1]
    if len(faces) and (int(faces.min()) < 0 or int(faces.max()) >= num_vertices):
        raise ValueError(
            f"The faces use vertices {int(faces.min())} to {int(faces.max())}, but the mesh has vertices 0 "
            f"to {num_vertices - 1}; the faces belong to another mesh."
        )
    return faces.to(device=vertices_cam.device, dtype=torch.int64)


def _broadcast_colors(
    colors: Float[Tensor, "*#frame #vertex 3"] | Sequence[float] | None,
    vertices_cam: Float[Tensor, "frame vertex 3"],
) -> Float[Tensor, "#frame #vertex 3"]:
    surface = torch.as_tensor(BODY_COLOR if colors is None else colors).to(vertices_cam)
    while surface.ndim < 3:
        surface = surface[None]
    fits = all(
        size in (1, wanted) for size, wanted in zip(surface.shape, (*vertices_cam.shape[:2], 3), strict=False)
    )
    if surface.ndim != 3 or surface.shape[-1] != 3 or not fits:
        raise ValueError(
            f"Colours of shape {tuple(surface.shape)} do not fit {vertices_cam.shape[0]} frames of "
            f"{vertices_cam.shape[1]} vertices; give one colour (3,), (V, 3) or (B, V, 3)."
        )
    return surface


def _mean_of_blocks(
    image: Float[Tensor, "frame fine_height fine_width channel"], block: int
) -> Float[Tensor, "frame height width channel"]:
    num_frames, height, width, num_channels = image.shape
    blocks = image.reshape(num_frames, height // block, block, width // block, block, num_channels)
    return blocks.mean(dim=(2, 4))


@contextmanager
def _limited_threads(num_threads: int, device: torch.device) -> Iterator[None]:
    if device.type != "cpu":
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
