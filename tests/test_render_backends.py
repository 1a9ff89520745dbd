"""PyTorch3D and pyrender against the default renderer where they are installed, their errors where not."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from jaxtyping import Float, Int
from torch import Tensor

from body_models.render import render, require_renderer
from core.camera import PinholeCamera
from core.rotations import rotvec_to_rotmat

REPOSITORY = Path(__file__).resolve().parents[1]
Mesh = tuple[Float[Tensor, "vertex 3"], Int[Tensor, "face 3"]]

needs_pytorch3d = pytest.mark.skipif(
    importlib.util.find_spec("pytorch3d") is None, reason="PyTorch3D is not installed"
)
needs_pyrender = pytest.mark.skipif(
    importlib.util.find_spec("pyrender") is None, reason="pyrender is not installed"
)
without_pytorch3d = pytest.mark.skipif(
    importlib.util.find_spec("pytorch3d") is not None, reason="PyTorch3D is installed"
)
without_pyrender = pytest.mark.skipif(
    importlib.util.find_spec("pyrender") is not None, reason="pyrender is installed"
)


def bumpy_sphere(subdivisions: int) -> Mesh:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    x, y, z = np.asarray(mesh.vertices).T
    radius = 0.45 + 0.08 * np.sin(7 * x) * np.cos(5 * y + 1) + 0.1 * np.cos(6 * z + 2 * x)
    vertices = np.asarray(mesh.vertices) * radius[:, None] * [0.7, 1.8, 0.6]
    return torch.tensor(vertices, dtype=torch.float32), torch.tensor(
        np.asarray(mesh.faces), dtype=torch.int64
    )


def centred_camera(height: int, width: int) -> PinholeCamera:
    K = torch.tensor([[1.3 * height, 0, width / 2], [0, 1.3 * height, height / 2], [0, 0, 1]])
    return PinholeCamera(K, torch.eye(3), torch.tensor([0, 0, 3.0]), (height, width))


def off_centre_camera(height: int, width: int) -> PinholeCamera:
    """Rotated, fx ≠ fy, and the body partly outside the image."""
    K = torch.tensor([[1.27 * height, 0, 0.58 * width], [0, 1.11 * height, 0.43 * height], [0, 0, 1]])
    R = rotvec_to_rotmat(torch.tensor([0.4, -0.7, 0.25]))
    return PinholeCamera(K, R, torch.tensor([0.35, 0.3, 2.1]), (height, width))


def iou(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum() / (first | second).sum())


@needs_pytorch3d
@pytest.mark.parametrize("make_camera", [centred_camera, off_centre_camera])
def test_pytorch3d_equals_torch(make_camera: Callable[[int, int], PinholeCamera]) -> None:
    vertices, faces = bumpy_sphere(subdivisions=3)
    camera = make_camera(96, 128)
    poses = torch.stack([vertices, vertices * 0.8])
    default = render(poses, faces, camera, supersample=2)
    output = render(poses, faces, camera, renderer="pytorch3d", supersample=2)
    assert iou(output.mask, default.mask) >= 0.999
    both = output.mask & default.mask
    assert float((output.depth_m - default.depth_m)[both].abs().max()) < 1e-4
    assert float((output.face_id != default.face_id)[both].float().mean()) < 1e-3
    torch.testing.assert_close(output.rgb, default.rgb, atol=0.02, rtol=0)
    assert bool((output.face_id[~output.mask] == -1).all())


@needs_pytorch3d
def test_pytorch3d_has_the_same_depth_gradient() -> None:
    vertices, faces = bumpy_sphere(subdivisions=2)
    camera = off_centre_camera(48, 64)
    gradients = []
    for renderer in ("torch", "pytorch3d"):
        leaf = vertices.clone().requires_grad_()
        render(leaf, faces, camera, renderer=renderer).depth_m.sum().backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(
        gradients[0], gradients[1], rtol=1e-2, atol=1e-2 * float(gradients[0].abs().max())
    )


@needs_pytorch3d
def test_pytorch3d_clips_at_the_near_plane() -> None:
    vertices = torch.tensor([[-0.6, 0.5, -1.0], [0.6, 0.5, -1.0], [0.41, 0.52, 4.0], [-0.4, 0.51, 4.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    camera = PinholeCamera(
        torch.tensor([[16.0, 0, 12], [0, 16.0, 9], [0, 0, 1]]), torch.eye(3), torch.zeros(3), (18, 24)
    )
    default, output = (render(vertices, faces, camera, renderer=name) for name in ("torch", "pytorch3d"))
    assert torch.equal(output.mask, default.mask)
    torch.testing.assert_close(output.depth_m, default.depth_m, atol=1e-4, rtol=0)


@needs_pytorch3d
def test_soft_silhouette_has_a_gradient_of_coverage() -> None:
    """A body beside its target is pulled towards it, by the slope that finite differences show."""
    vertices, faces = bumpy_sphere(subdivisions=1)
    camera = centred_camera(32, 32)
    hard = render(vertices, faces, camera)

    def loss(offset: Tensor) -> Tensor:
        output = render(vertices + offset, faces, camera, soft_silhouette_px=3.0)  # auto chooses PyTorch3D
        return (output.alpha - hard.alpha).square().sum()

    offset = torch.tensor([0.12, -0.08, 0.0], requires_grad=True)
    loss(offset).backward()
    assert float(offset.grad[0]) > 0 > float(offset.grad[1])
    for axis in range(2):
        step = 1e-3 * torch.eye(3)[axis]
        with torch.no_grad():
            numeric = (loss(offset + step) - loss(offset - step)) / 2e-3
        assert float(offset.grad[axis]) == pytest.approx(float(numeric), rel=0.05)

    soft = render(vertices, faces, camera, soft_silhouette_px=3.0)
    assert torch.equal(soft.face_id, hard.face_id)
    assert float(soft.alpha[hard.mask].min()) > 0.5
    assert 0 <= float(soft.alpha.min()) < float(soft.alpha.max()) <= 1
    assert int(((soft.alpha > 0.01) & ~hard.mask).sum()) > 30


@needs_pyrender
@pytest.mark.parametrize("make_camera", [centred_camera, off_centre_camera])
def test_pyrender_equals_torch(make_camera: Callable[[int, int], PinholeCamera]) -> None:
    from body_models.render import pyrender_backend

    vertices, faces = bumpy_sphere(subdivisions=4)
    camera = make_camera(480, 640)
    variable = os.environ.get("PYOPENGL_PLATFORM")
    default = render(vertices, faces, camera)
    output = render(vertices, faces, camera, renderer="pyrender")
    # EGL resolves depth from a sample that lies away from the pixel's centre.
    exact = pyrender_backend.platform() == "osmesa"
    assert iou(output.mask, default.mask) >= (0.999 if exact else 0.97)
    both = output.mask & default.mask
    difference_m = (output.depth_m - default.depth_m)[both].abs()
    assert float(difference_m.median()) < (1e-4 if exact else 5e-3)
    # Another shading model under the same lights: alike, not equal.
    assert float((output.rgb - default.rgb)[both].abs().mean()) < 0.08
    assert output.face_id is None
    assert float(output.rgb[~output.mask & (output.alpha == 0)].abs().max()) == 0
    assert os.environ.get("PYOPENGL_PLATFORM") == variable
    assert "pyglet" not in sys.modules


@needs_pyrender
def test_pyrender_batches_sizes_and_supersampling() -> None:
    vertices, faces = bumpy_sphere(subdivisions=3)
    batch = render(
        torch.stack([vertices, vertices * 0.5]), faces, centred_camera(64, 64), renderer="pyrender"
    )
    assert batch.mask.flatten(1).sum(1).tolist()[0] > batch.mask.flatten(1).sum(1).tolist()[1] > 0
    smooth = render(vertices, faces, centred_camera(48, 80), renderer="pyrender", supersample=2)
    assert smooth.rgb.shape == (1, 48, 80, 3)
    assert int(((smooth.alpha > 0) & (smooth.alpha < 1)).sum()) > 10


@needs_pyrender
def test_pyrender_and_pytorch3d_refuse_skew() -> None:
    vertices, faces = bumpy_sphere(subdivisions=1)
    camera = centred_camera(16, 16)
    camera.K[0, 1] = 2.0
    with pytest.raises(ValueError, match="no skew"):
        render(vertices, faces, camera, renderer="pyrender")


def test_requiring_a_renderer() -> None:
    require_renderer("torch")
    require_renderer("auto")
    with pytest.raises(ValueError, match="crayon"):
        require_renderer("crayon")


@without_pytorch3d
def test_requiring_an_absent_renderer_is_a_users_error() -> None:
    with pytest.raises(ValueError, match=r"pytorch3d/blob/main/INSTALL\.md"):
        require_renderer("pytorch3d")


@without_pytorch3d
@pytest.mark.parametrize("options", [{"renderer": "pytorch3d"}, {"soft_silhouette_px": 2.0}])
def test_absent_pytorch3d_names_its_remedy(options: dict[str, object]) -> None:
    vertices, faces = bumpy_sphere(subdivisions=1)
    with pytest.raises(ModuleNotFoundError, match=r"pytorch3d/blob/main/INSTALL\.md"):
        render(vertices, faces, centred_camera(16, 16), **options)


@without_pyrender
def test_absent_pyrender_names_its_remedy() -> None:
    vertices, faces = bumpy_sphere(subdivisions=1)
    # Without any OpenGL library, that is the first thing to say.
    with pytest.raises((ModuleNotFoundError, RuntimeError), match="install"):
        render(vertices, faces, centred_camera(16, 16), renderer="pyrender")
    assert "PYOPENGL_PLATFORM" not in os.environ
    assert "pyrender.viewer" not in sys.modules


def test_no_usable_opengl_names_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from body_models.render import pyrender_backend

    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(pyrender_backend.ctypes, "CDLL", missing)
    with pytest.raises(RuntimeError, match="apt-get install libegl1"):
        pyrender_backend.platform()
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    assert pyrender_backend.platform() == "osmesa"


def test_back_ends_are_imported_only_when_chosen() -> None:
    program = (
        "import sys; import body_models.render as r; "
        "bad = {'pytorch3d', 'pyrender', 'OpenGL', 'pyglet', 'trimesh', 'PIL', 'scipy'} & set(sys.modules); "
        "assert not bad, bad; "
        "assert 'body_models.render.torch_rasterizer' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY)


def test_unknown_renderer_is_named() -> None:
    vertices, faces = bumpy_sphere(subdivisions=1)
    with pytest.raises(ValueError, match="no renderer called 'opengl'"):
        render(vertices, faces, centred_camera(16, 16), renderer="opengl")
