"""The default renderer on the open body against Embree with a Lambert shader in numpy, and any other back-end here.

Every frame counts from vertices to a shaded image: the body moves, so nothing is kept from one frame to the next.
"""

import importlib.util
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from rich.progress import track
from torch import Tensor

from benchmarks.timing import BenchRow, time_side_by_side
from body_models.open_body import load_open_body
from body_models.render import BODY_COLOR, RenderOutput, render
from core.camera import PinholeCamera

IMAGE_SIZES = (256, 512, 1024)
# PyTorch3D tests every pixel against every face on the CPU: about a second at this size already.
PYTORCH3D_SIZE = 64


def run(threads: int) -> list[BenchRow]:
    """Rows for the default of one thread, and for `threads` where that is more.

    Raises:
        ValueError: the package embreex is not installed.
    """
    if importlib.util.find_spec("embreex") is None:
        raise ValueError("The reference, the package embreex, is not installed: pip install embreex.")
    body = load_open_body()
    # The body's y is up and it faces +z; the camera's y is down and it looks along +z.
    vertices = body.v_template * body.v_template.new_tensor([1.0, -1.0, -1.0])
    faces = body.faces.long()

    cases: list[tuple[int, str, Callable[[PinholeCamera], Tensor]]] = [
        (size, "embreex + numpy Lambert", partial(_embree_depth, vertices, faces)) for size in IMAGE_SIZES
    ]
    if importlib.util.find_spec("pyrender") is not None:
        cases += [(size, "pyrender", partial(_depth_of, "pyrender", vertices, faces)) for size in IMAGE_SIZES]
    if importlib.util.find_spec("pytorch3d") is not None:
        cases.append((PYTORCH3D_SIZE, "PyTorch3D", partial(_depth_of, "pytorch3d", vertices, faces)))

    return [
        _row(vertices, faces, _camera(size), num_threads, reference_name, reference)
        for size, reference_name, reference in track(cases, "Measuring", transient=True)
        for num_threads in sorted({1, threads})
    ]


def _row(
    vertices: Tensor,
    faces: Tensor,
    camera: PinholeCamera,
    num_threads: int,
    reference_name: str,
    reference: Callable[[PinholeCamera], Tensor],
) -> BenchRow:
    def ours() -> RenderOutput:
        return render(vertices, faces, camera, num_threads=num_threads)

    depth_m, reference_depth_m = ours().depth_m[0], reference(camera)
    both = (depth_m > 0) & (reference_depth_m > 0)
    ours_s, reference_s = time_side_by_side(ours, lambda: reference(camera), seconds=2.0)
    height, width = camera.image_size
    return BenchRow(
        case=f"{height} × {width} px, shaded" + (f", {num_threads} threads" if num_threads > 1 else ""),
        ours_s=ours_s,
        reference=reference_name,
        reference_s=reference_s,
        max_abs_diff=(depth_m - reference_depth_m)[both].abs().max().item(),
        sizes={"height": height, "width": width, "num_vertices": len(vertices), "num_faces": len(faces)},
        dtype=str(vertices.dtype).removeprefix("torch."),
        threads=num_threads,
    )


def _camera(size: int) -> PinholeCamera:
    K = torch.tensor([[1.3 * size, 0, size / 2], [0, 1.3 * size, size / 2], [0, 0, 1]])
    return PinholeCamera(K, torch.eye(3), torch.tensor([0.0, 0.2, 2.6]), (size, size))


def _depth_of(renderer: str, vertices: Tensor, faces: Tensor, camera: PinholeCamera) -> Tensor:
    return render(vertices, faces, camera, renderer=renderer).depth_m[0]


def _embree_depth(vertices: Tensor, faces: Tensor, camera: PinholeCamera) -> Tensor:
    """Depth in metres; shades the same pixels on the way, with flat normals and a light beside the camera."""
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    vertices_cam = camera.world_to_camera(vertices).numpy()
    scene = EmbreeScene()
    TriangleMesh(scene, vertices_cam, faces.numpy().astype(np.int32))
    height, width = camera.image_size
    (fx, _, cx), (_, fy, cy), _ = camera.K.tolist()
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    # Rays with z = 1: the distance along them is the depth.
    rays = np.stack([(column - cx) / fx, (row - cy) / fy, np.ones_like(row)], axis=-1).astype(np.float32)
    hits = scene.run(np.zeros((height * width, 3), dtype=np.float32), rays.reshape(-1, 3), output=True)
    seen = np.flatnonzero(hits["primID"] >= 0)

    a, b, c = (vertices_cam[faces[:, corner].numpy()] for corner in range(3))
    normals = np.cross(b - a, c - a)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    received = 0.4 + 0.6 * np.clip(-normals @ np.asarray([0.5, 0.6, 0.6]), 0, None)
    rgb = np.zeros((height * width, 3), dtype=np.float32)
    rgb[seen] = received[hits["primID"][seen], None] * np.asarray(BODY_COLOR)
    depth_m = np.zeros(height * width, dtype=np.float32)
    depth_m[seen] = hits["tfar"][seen]
    return torch.from_numpy(depth_m.reshape(height, width))
