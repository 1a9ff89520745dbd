"""Written meshes, read back by trimesh and by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from body_fixtures import random_body_arrays, random_body_parameters

from body_models.export.obj import write_obj
from body_models.smpl import SmplBody


def test_obj_is_read_back_by_trimesh(tmp_path: Path) -> None:
    body = SmplBody.from_arrays(random_body_arrays())
    vertices_m = body(random_body_parameters(dtype=torch.float32)).vertices_m.requires_grad_()
    path = tmp_path / "not_there_yet" / "body.obj"
    write_obj(path, vertices_m, body.faces)
    mesh = trimesh.load(path, process=False, maintain_order=True)
    np.testing.assert_allclose(mesh.vertices, vertices_m.detach(), atol=1e-5)
    np.testing.assert_array_equal(mesh.faces, body.faces)
    assert [file.name for file in path.parent.iterdir()] == ["body.obj"]


def test_obj_counts_from_one(tmp_path: Path) -> None:
    write_obj(tmp_path / "a.obj", np.array([[0, 1, -2], [0.5, 0, 0], [1e-7, 0, 3.25]]), np.array([[0, 1, 2]]))
    assert (tmp_path / "a.obj").read_bytes() == (
        b"v 0.00000 1.00000 -2.00000\nv 0.50000 0.00000 0.00000\nv 0.00000 0.00000 3.25000\nf 1 2 3\n"
    )


def test_a_refused_mesh_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.obj"
    vertices, faces = np.eye(3), np.array([[0, 1, 2]])
    write_obj(path, vertices, faces)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"a\.obj was not written: its faces name vertices outside 0 … 2"):
        write_obj(path, vertices, faces + 1)
    with pytest.raises(ValueError, match="not finite"):
        write_obj(path, vertices * np.nan, faces)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
