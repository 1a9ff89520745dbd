"""The default renderer against Embree, against a naive twin, and against its own documented conventions."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from body_models.render import Light, concatenate_meshes, render
from body_models.render.shading import vertex_normals
from core.camera import PinholeCamera, project
from core.rotations import rotvec_to_rotmat

Mesh = tuple[Float[Tensor, "vertex 3"], Int[Tensor, "face 3"]]
TWO_PEOPLE = 2


def from_trimesh(mesh: trimesh.Trimesh, dtype: torch.dtype = torch.float32) -> Mesh:
    """Origin in the middle, y down."""
    vertices = torch.tensor(np.asarray(mesh.vertices - mesh.bounds.mean(0)), dtype=dtype)
    turn = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=dtype)
    return vertices @ turn.T, torch.tensor(np.asarray(mesh.faces), dtype=torch.int64)


def bumpy_sphere(subdivisions: int = 5) -> Mesh:
    """A closed body with folds that hide one another."""
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    x, y, z = np.asarray(mesh.vertices).T
    radius = 0.45 + 0.08 * np.sin(7 * x) * np.cos(5 * y + 1) + 0.1 * np.cos(6 * z + 2 * x)
    mesh.vertices = mesh.vertices * radius[:, None] * [0.7, 0.6, 1.8]
    return from_trimesh(mesh)


def capsule() -> Mesh:
    return from_trimesh(trimesh.creation.capsule(height=1.2, radius=0.25, count=[48, 48]))


def open_body() -> Mesh:
    if not (Path(__file__).resolve().parents[1] / "body_models/open_body/neutral.npz").exists():
        pytest.skip("the open body has not been built (python tools/build_open_body.py)")
    from body_models.open_body import load_open_body

    body = load_open_body("neutral")
    return body.v_template * torch.tensor([1.0, -1, -1]), body.faces.long()


def centred_camera(size: tuple[int, int] = (256, 256), dtype: torch.dtype = torch.float32) -> PinholeCamera:
    height, width = size
    K = torch.tensor([[1.3 * height, 0, width / 2], [0, 1.3 * height, height / 2], [0, 0, 1]], dtype=dtype)
    return PinholeCamera(K, torch.eye(3, dtype=dtype), torch.tensor([0, 0, 3.0], dtype=dtype), size)


def skewed_view(dtype: torch.dtype = torch.float32) -> PinholeCamera:
    """Off-centre, rotated, fx ≠ fy, 640×480, the body partly outside the image."""
    K = torch.tensor([[610.0, 0, 371.3], [0, 535.0, 204.6], [0, 0, 1]], dtype=dtype)
    R = rotvec_to_rotmat(torch.tensor([0.4, -0.7, 0.25], dtype=dtype))
    return PinholeCamera(K, R, torch.tensor([0.35, 0.3, 2.1], dtype=dtype), (480, 640))


def embree_depth(vertices: Tensor, faces: Tensor, camera: PinholeCamera) -> Float[Tensor, "height width"]:
    """One ray per pixel centre, in the camera frame with z = 1, so that the hit distance is the depth."""
    rtcore_scene = pytest.importorskip("embreex.rtcore_scene", reason="embreex is not installed")
    mesh_construction = pytest.importorskip("embreex.mesh_construction")
    vertices_cam = camera.world_to_camera(vertices).numpy().astype(np.float32)
    scene = rtcore_scene.EmbreeScene()
    mesh_construction.TriangleMesh(scene, vertices_cam, faces.numpy().astype(np.int32))
    height, width = camera.image_size
    (fx, _, cx), (_, fy, cy), _ = camera.K.tolist()
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    rays = np.stack([(column - cx) / fx, (row - cy) / fy, np.ones_like(row)], axis=-1).reshape(-1, 3)
    rays = rays.astype(np.float32)
    depth = scene.run(np.zeros_like(rays), rays, query="DISTANCE").reshape(height, width)
    return torch.tensor(np.where(depth < 1e6, depth, 0))


def naive_render(
    vertices: Tensor, faces: Tensor, camera: PinholeCamera
) -> tuple[Float[Tensor, "height width"], Int[Tensor, "height width"]]:
    """Depth and face of every pixel by Möller–Trumbore on every face, in loops and float64."""
    corners = camera.world_to_camera(vertices).double().numpy()
    K = camera.K.double().numpy()
    height, width = camera.image_size
    depth, face_id = np.zeros((height, width)), np.full((height, width), -1)
    for row in range(height):
        for column in range(width):
            ray = np.linalg.solve(K, [column + 0.5, row + 0.5, 1.0])
            nearest = np.inf
            for index, (i, j, k) in enumerate(faces.tolist()):
                edge1, edge2 = corners[j] - corners[i], corners[k] - corners[i]
                normal = np.cross(ray, edge2)
                determinant = edge1 @ normal
                if determinant == 0:
                    continue
                b = -(corners[i] @ normal) / determinant
                cross = np.cross(-corners[i], edge1)
                c = ray @ cross / determinant
                distance = edge2 @ cross / determinant
                if min(b, c, 1 - b - c) >= 0 and 0.05 <= distance < nearest:
                    nearest, depth[row, column], face_id[row, column] = distance, distance, index
    return torch.tensor(depth), torch.tensor(face_id)


def iou(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / (first | second).sum())


@pytest.mark.parametrize("make_camera", [lambda: centred_camera((480, 640)), skewed_view])
@pytest.mark.parametrize("make_mesh", [bumpy_sphere, capsule, open_body])
def test_equals_embree(make_mesh: Callable[[], Mesh], make_camera: Callable[[], PinholeCamera]) -> None:
    vertices, faces = make_mesh()
    camera = make_camera()
    output = render(vertices, faces, camera)
    reference = embree_depth(vertices, faces, camera)
    assert reference.count_nonzero() > 5000
    assert iou(output.mask[0], reference > 0) >= 0.999
    both = output.mask[0] & (reference > 0)
    difference_mm = (output.depth_m[0] - reference)[both].abs() * 1000
    # A handful of rays graze a fold within rounding and see the other side of it.
    assert float((difference_mm > 0.1).float().mean()) < 1e-4
    assert float(difference_mm.median()) < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_naive_twin(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    vertices = torch.rand(16, 3, generator=generator, dtype=dtype) * 2 - 1
    faces = torch.randint(16, (24, 3), generator=generator)  # some of them degenerate, all of them crossing
    K = torch.tensor([[19.0, 1.5, 10.2], [0, 17.0, 7.4], [0, 0, 1]], dtype=dtype)
    camera = PinholeCamera(K, torch.eye(3, dtype=dtype), torch.tensor([0.1, 0, 1.6], dtype=dtype), (16, 20))
    output = render(vertices, faces, camera)
    depth, face_id = naive_render(vertices, faces, camera)
    torch.testing.assert_close(output.face_id[0], face_id)
    torch.testing.assert_close(output.depth_m[0].double(), depth, atol=2e-6, rtol=0)


def test_faces_across_the_near_plane_are_clipped() -> None:
    """Long triangles that start behind the camera, one or two corners in front."""
    vertices = torch.tensor(
        [
            [-0.6, 0.5, -1.0],
            [0.6, 0.5, -1.0],
            [0.41, 0.52, 4.0],
            [-0.4, 0.51, 4.0],
            [0.03, -2, 0.01],
            [-0.5, -0.4, 3],
        ]
    )
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 2]])
    K = torch.tensor([[16.0, 0, 12], [0, 16.0, 9], [0, 0, 1]])
    camera = PinholeCamera(K, torch.eye(3), torch.zeros(3), (18, 24))
    vertices.requires_grad_()
    output = render(vertices, faces, camera)
    depth, face_id = naive_render(vertices.detach(), faces, camera)
    assert set(face_id.unique().tolist()) == {-1, 0, 1, 2}
    torch.testing.assert_close(output.face_id[0], face_id)
    torch.testing.assert_close(output.depth_m[0].detach().double(), depth, atol=1e-5, rtol=0)
    output.depth_m.sum().backward()
    assert torch.isfinite(vertices.grad).all()


def test_every_pixel_of_a_closed_surface_once() -> None:
    """A plane cut into random triangles, corners on pixel centres among them: no gap, no double."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(40, 2, generator=generator) * 16
    points[:20] = points[:20].floor() + 0.5
    outline = torch.tensor([[-1.0, -1], [17, -1], [17, 17], [-1, 17]])
    points = torch.cat([outline, points]).unique(dim=0)
    from scipy.spatial import Delaunay

    faces = torch.tensor(Delaunay(points.double().numpy()).simplices, dtype=torch.int64)
    vertices = torch.cat([points, torch.ones(len(points), 1)], dim=1)
    camera = PinholeCamera(torch.eye(3), torch.eye(3), torch.zeros(3), (16, 16))
    assert bool(render(vertices, faces, camera).mask.all())
    coverage = torch.zeros(16, 16, dtype=torch.int64)
    for face in faces:
        coverage += render(vertices, face[None], camera).mask[0]
    assert bool((coverage == 1).all())


def test_pixels_count_from_the_edge() -> None:
    vertices = torch.tensor([[0.0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = PinholeCamera(
        torch.tensor([[2.0, 0, 3], [0, 3, 1], [0, 0, 1]]), torch.eye(3), torch.zeros(3), (6, 8)
    )
    expected = torch.zeros(6, 8, dtype=torch.bool)
    expected[1:4, 3:5] = True  # x from 3 to 5, y from 1 to 4
    assert torch.equal(render(vertices, faces, camera).mask[0], expected)


def test_depth_gradient_equals_finite_differences() -> None:
    vertices, faces = bumpy_sphere(subdivisions=1)
    vertices = vertices.double()
    camera = centred_camera((40, 40), torch.float64)
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(40, 40, generator=generator, dtype=torch.float64)
    reference = render(vertices, faces, camera)

    def loss(moved: Tensor) -> Tensor:
        output = render(moved, faces, camera)
        # Coverage has no gradient: only pixels that see the same face before and after count.
        assert torch.equal(output.face_id, reference.face_id)
        return (output.depth_m[0] * weights).sum()

    direction = torch.randn(vertices.shape, generator=generator, dtype=torch.float64)
    leaf = vertices.clone().requires_grad_()
    loss(leaf).backward()
    step = 1e-7
    numeric = (loss(vertices + step * direction) - loss(vertices - step * direction)) / (2 * step)
    torch.testing.assert_close((leaf.grad * direction).sum(), numeric, rtol=1e-5, atol=1e-6)


def test_gradients_are_finite_for_degenerate_faces() -> None:
    vertices, faces = capsule()
    vertices = vertices.clone()
    vertices[faces[:50, 1]] = vertices[faces[:50, 0]]
    alone = vertices[:1] + torch.tensor([[0.0, 0.0, -1.0], [1e-7, 0.0, -1.0], [0.0, 1e-7, -1.0]])
    faces = torch.cat([faces, len(vertices) + torch.tensor([[0, 1, 2], [0, 0, 0]])])
    vertices = torch.cat([vertices, alone]).requires_grad_()
    output = render(vertices, faces, centred_camera((64, 64)), supersample=2)
    (output.depth_m.sum() + output.rgb.sum()).backward()
    assert torch.isfinite(vertices.grad).all()
    assert float(vertices.grad.abs().max()) > 0


def test_batches_equal_single_frames() -> None:
    vertices, faces = bumpy_sphere(subdivisions=3)
    poses = torch.stack([vertices, vertices * 0.7, vertices + torch.tensor([0.2, -0.1, 0.5])])
    one = centred_camera((48, 64))
    yaw = rotvec_to_rotmat(torch.tensor([[0, 0.3, 0], [0, 1.0, 0], [0.5, 0, 0]]))
    cameras = PinholeCamera(one.K.expand(3, 3, 3), yaw, one.t_cam_world_m.expand(3, 3), (48, 64))
    colors = torch.rand(3, len(vertices), 3, generator=torch.Generator().manual_seed(0))
    together = render(poses, faces, cameras, colors=colors)
    shared_camera = render(poses, faces, one)
    shared_mesh = render(vertices, faces, cameras)
    for frame in range(3):
        camera = PinholeCamera(one.K, yaw[frame], one.t_cam_world_m, (48, 64))
        for batch, alone in (
            (together, render(poses[frame], faces, camera, colors=colors[frame])),
            (shared_camera, render(poses[frame], faces, one)),
            (shared_mesh, render(vertices, faces, camera)),
        ):
            assert torch.equal(batch.face_id[frame], alone.face_id[0])
            torch.testing.assert_close(batch.rgb[frame], alone.rgb[0])
            torch.testing.assert_close(batch.depth_m[frame], alone.depth_m[0])


def test_background_conventions_and_the_empty_view() -> None:
    vertices, faces = capsule()
    output = render(vertices, faces, centred_camera((64, 64)))
    outside = ~output.mask
    assert bool(outside.any())
    assert bool(output.mask.any())
    assert torch.equal(output.mask, output.face_id >= 0)
    assert torch.equal(output.mask, output.alpha == 1)
    for channel in (output.rgb, output.alpha, output.depth_m):
        assert float(channel[outside].abs().max()) == 0
    assert float(output.rgb.max()) <= 1
    assert float(output.rgb[output.mask].min()) > 0

    behind = render(vertices - torch.tensor([0, 0, 9.0]), faces, centred_camera((64, 64)), supersample=2)
    for nothing in (behind, render(vertices, faces[:0], centred_camera((64, 64)))):
        assert nothing.rgb.shape == (1, 64, 64, 3)
        assert float(nothing.rgb.sum() + nothing.alpha.sum() + nothing.depth_m.sum()) == 0
        assert bool((nothing.face_id == -1).all())
    white = behind.over(torch.ones(3))
    assert torch.equal(white, torch.ones_like(white))


def test_supersampling_smooths_colour_and_leaves_depth() -> None:
    vertices, faces = bumpy_sphere(subdivisions=3)
    camera = centred_camera((64, 64))
    plain, smooth = render(vertices, faces, camera), render(vertices, faces, camera, supersample=4)
    assert torch.equal(plain.depth_m, smooth.depth_m)
    assert torch.equal(plain.face_id, smooth.face_id)
    fractions = smooth.alpha[(smooth.alpha > 0) & (smooth.alpha < 1)]
    assert len(fractions) > 50
    assert torch.equal((fractions * 16).round(), fractions * 16)
    # Anti-aliasing keeps the area of the silhouette.
    assert float(smooth.alpha.sum() / plain.alpha.sum()) == pytest.approx(1, abs=0.01)


def test_several_people_hide_one_another() -> None:
    vertices, faces = capsule()
    people = [vertices, vertices + torch.tensor([0.1, 0, -0.8])]
    both_vertices, both_faces = concatenate_meshes(people, [faces] * TWO_PEOPLE)
    together = render(both_vertices, both_faces, centred_camera())
    alone = [render(person, faces, centred_camera()) for person in people]
    behind, front = together.face_id < len(faces), together.face_id >= len(faces)
    assert torch.equal(front, alone[1].mask)
    assert torch.equal(behind & together.mask, alone[0].mask & ~alone[1].mask)
    with pytest.raises(ValueError, match="one face list per vertex list"):
        concatenate_meshes(people, [faces])


def test_light_and_colours() -> None:
    """A wall that faces the camera: lit by the angle of the light alone, whichever way its corners run."""
    vertices = torch.tensor([[-1.0, -1, 2], [1, -1, 2], [1, 1, 2], [-1, 1, 2]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = PinholeCamera(
        torch.tensor([[8.0, 0, 4], [0, 8.0, 4], [0, 0, 1]]), torch.eye(3), torch.zeros(3), (8, 8)
    )
    headlight = Light(
        key_direction=(0.0, 0.0, 2.0),
        key_intensity=0.5,
        fill_intensity=0.0,
        sky_intensity=0.2,
        ground_intensity=0.2,
    )
    for winding in (faces, faces.flip(1)):
        output = render(vertices, winding, camera, light=headlight, colors=(1.0, 0.5, 0.25))
        expected = torch.tensor([0.7, 0.35, 0.175]).expand(8, 8, 3)
        torch.testing.assert_close(output.rgb[0], expected)
    ramp = (vertices + 1) / 2
    output = render(vertices, faces, camera, light=headlight, colors=ramp * torch.tensor([1.0, 1, 0]))
    centres = (torch.arange(8) + 0.5) / 8
    torch.testing.assert_close(output.rgb[0, 3, :, 0], 0.7 * centres)
    torch.testing.assert_close(output.rgb[0, :, 3, 1], 0.7 * centres)


def test_vertex_normals_of_a_sphere() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=4)
    vertices = torch.tensor(np.asarray(mesh.vertices))[None].repeat(2, 1, 1)
    normals = vertex_normals(vertices, torch.tensor(np.asarray(mesh.faces)))
    assert float((normals * vertices).sum(-1).min()) > 0.9999
    nowhere = vertex_normals(torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]]))
    assert torch.equal(nowhere, torch.zeros(1, 3, 3))


def test_projection_agrees_with_core() -> None:
    """The silhouette's bounding box is that of the projected vertices, rounded to pixel centres."""
    vertices, faces = bumpy_sphere()
    camera = centred_camera((480, 640))
    points_px = project(camera.world_to_camera(vertices), camera.K)
    rows, columns = render(vertices, faces, camera).mask[0].nonzero().T
    low, high = points_px.amin(0), points_px.amax(0)
    assert abs(float(columns.min()) + 0.5 - float(low[0])) < 1
    assert abs(float(rows.max()) + 0.5 - float(high[1])) < 1


def test_threads_are_limited_during_the_call_only() -> None:
    vertices, faces = capsule()
    before = torch.get_num_threads()
    one = render(vertices, faces, centred_camera((64, 64)), num_threads=1)
    two = render(vertices, faces, centred_camera((64, 64)), num_threads=2)
    assert torch.get_num_threads() == before
    assert torch.equal(one.face_id, two.face_id)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"supersample": 0}, "supersample"),
        ({"near_m": 0.0}, "near_m"),
        ({"num_threads": 0}, "num_threads"),
        ({"num_threads": 10**6}, "num_threads"),
        ({"near_m": float("nan")}, "near_m"),
        ({"soft_silhouette_px": -1.0}, "positive width"),
        ({"soft_silhouette_px": 2.0, "renderer": "torch"}, "soft silhouette"),
        ({"soft_silhouette_px": 2.0, "supersample": 2}, "already smooth"),
        ({"colors": (0.1, 0.2)}, "Colours"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], message: str) -> None:
    vertices, faces = capsule()
    with pytest.raises(ValueError, match=message):
        render(vertices, faces, centred_camera((16, 16)), **options)


def test_wrong_meshes_are_named() -> None:
    vertices, faces = capsule()
    camera = centred_camera((16, 16))
    with pytest.raises(ValueError, match="belong to another mesh"):
        render(vertices[:-1], faces, camera)
    with pytest.raises(ValueError, match="NaN"):
        render(vertices / 0, faces, camera)
    for odd in (camera.K * float("nan"), camera.K * torch.tensor([0.0, 1.0, 1.0])):
        with pytest.raises(ValueError, match="finite, and its focal lengths above 0"):
            render(vertices, faces, dataclasses.replace(camera, K=odd))
    with pytest.raises(ValueError, match="at most one batch dimension"):
        render(vertices[None, None], faces, camera)
    cameras = PinholeCamera(
        camera.K.expand(2, 3, 3), camera.R_cam_world.expand(2, 3, 3), torch.zeros(2, 3), (16, 16)
    )
    with pytest.raises(ValueError, match="3 frames of vertices do not fit 2 cameras"):
        render(vertices.expand(3, -1, -1), faces, cameras)
