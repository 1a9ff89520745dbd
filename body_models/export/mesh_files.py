"""One mesh in a file: Wavefront OBJ, readable by every 3D program, and binary PLY, two thirds of the size.

Neither has a unit or axes, so the numbers are written as they are. A file appears under its name only when it is
complete.
"""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.atomic_write import written_whole

Vertices = Float[Tensor, "vertex 3"] | Float[np.ndarray, "vertex 3"]
Faces = Int[Tensor, "face 3"] | Int[np.ndarray, "face 3"]


def write_obj(path: str | Path, vertices: Vertices, faces: Faces) -> None:
    """Writes a triangle mesh as text; positions to a hundredth of a millimetre, if they are in metres.

    Raises:
        ValueError: a position is not finite, or a face names a vertex that is not there.
    """
    positions, triangles = _checked(Path(path), vertices, faces)
    vertex_lines = ["v {:.5f} {:.5f} {:.5f}\n".format(*position) for position in positions.tolist()]
    face_lines = ["f {} {} {}\n".format(*triangle) for triangle in (triangles + 1).tolist()]  # counts from 1
    with written_whole(path) as file:
        file.write("".join(vertex_lines + face_lines).encode("ascii"))


def write_ply(path: str | Path, vertices: Vertices, faces: Faces) -> None:
    """Writes a triangle mesh in little-endian binary, positions in single precision.

    Raises:
        ValueError: a position is not finite, or a face names a vertex that is not there.
    """
    import trimesh  # takes half a second

    positions, triangles = _checked(Path(path), vertices, faces)
    mesh = trimesh.Trimesh(positions, triangles, process=False)
    content = mesh.export(file_type="ply", vertex_normal=False)
    assert isinstance(content, bytes)
    with written_whole(path) as file:
        file.write(content)


def _checked(
    path: Path, vertices: Vertices, faces: Faces
) -> tuple[Float[np.ndarray, "vertex 3"], Int[np.ndarray, "face 3"]]:
    positions, triangles = _as_numpy(vertices).astype(np.float64), _as_numpy(faces).astype(np.int64)
    if not np.isfinite(positions).all():
        raise ValueError(f"{path} was not written: some vertex positions are not finite numbers.")
    if triangles.min(initial=0) < 0 or triangles.max(initial=-1) >= len(positions):
        raise ValueError(
            f"{path} was not written: its faces name vertices outside 0 … {len(positions) - 1}; "
            "give the faces of the same body as the vertices, counted from 0."
        )
    return positions, triangles


def _as_numpy(array: Tensor | np.ndarray) -> np.ndarray:
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else array
