"""pyrender: OpenGL without a window, through EGL or OSMesa.

Importing this module imports nothing of pyrender; the first frame does. PyOpenGL reads PYOPENGL_PLATFORM when
it is imported and pyrender when a renderer is made: the variable is set around exactly these two moments and
then restored. A value the user has set wins.
"""

import ctypes
import importlib
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from body_models.render.buffers import RenderOutput
from body_models.render.shading import Light, vertex_normals

logger = logging.getLogger(__name__)

# Frames look along −z with y up in OpenGL, along +z with y down in ours.
TO_OPENGL = (1.0, -1.0, -1.0)
FAR_TO_NEAR = 4000.0
LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
SYSTEM_PACKAGES = "`apt-get install libegl1 libgl1 libgl1-mesa-dri libxrender1`"
OSMESA_REMEDY = "`apt-get install libosmesa6 libgl1` and `pip install --no-deps PyOpenGL==3.1.10`"

# One renderer per process: deleting one EGL renderer breaks the other live ones (mmatl/pyrender#288).
_renderer: Any = None


def platform() -> str:
    """The OpenGL platform that frames are drawn with: "egl", "osmesa", or "pyglet" (a window system's own).

    Raises:
        RuntimeError: Linux without a usable OpenGL library; says what to install.
    """
    chosen = os.environ.get("PYOPENGL_PLATFORM")
    if chosen:
        return chosen
    if not sys.platform.startswith("linux"):
        return "pyglet"
    for name, library in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            continue
        return name
    raise RuntimeError(
        f"renderer='pyrender' needs EGL or OSMesa, and neither {' nor '.join(LIBRARIES.values())} can be "
        f"loaded here. Install EGL with {SYSTEM_PACKAGES}, or use renderer='torch', which needs nothing."
    )


def draw(
    vertices_cam: Float[Tensor, "frame vertex 3"],
    faces: Int[Tensor, "face 3"],
    K: Float[Tensor, "frame 3 3"],
    image_size: tuple[int, int],
    colors: Float[Tensor, "#frame #vertex 3"],
    light: Light,
    supersample: int,
    near_m: float,
) -> RenderOutput:
    """Draw the frames one after the other; no gradients, and `face_id` is None.

    Raises:
        ModuleNotFoundError: pyrender is not installed.
        RuntimeError: OpenGL cannot be used here; says what to install.
        ValueError: K has skew, which pyrender's cameras have not.
    """
    if bool((K[:, 0, 1] != 0).any()):
        raise ValueError(
            "pyrender's cameras have no skew, and K has one (K[0, 1] is not 0); use renderer='torch'."
        )
    pyrender = _import_pyrender()
    vertices = vertices_cam.detach()
    flip = vertices.new_tensor(TO_OPENGL)
    positions = (vertices * flip).cpu().float().numpy()
    normals = (vertex_normals(vertices, faces) * flip).cpu().float().numpy()
    surface = colors.detach().expand(*vertices.shape).cpu().float().numpy()
    images = []
    for frame in range(len(vertices)):
        scene = _lit_scene(pyrender, light)
        # pyrender's shader ends with the display's gamma of 2.2; the colour goes in without it.
        rgba = np.concatenate([surface[frame] ** 2.2, np.ones_like(surface[frame, :, :1])], axis=1)
        primitive = pyrender.Primitive(
            positions=positions[frame],
            normals=normals[frame],
            color_0=rgba,
            indices=faces.cpu().numpy().astype(np.uint32),
            material=pyrender.MetallicRoughnessMaterial(
                metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
            ),
        )
        scene.add(pyrender.Mesh([primitive]))
        rgb, alpha, depth_m = _draw_scene(pyrender, scene, K[frame], image_size, 1, near_m)
        if supersample > 1:
            rgb, alpha, _ = _draw_scene(pyrender, scene, K[frame], image_size, supersample, near_m)
        images.append((rgb, alpha, depth_m))
    stacked = [torch.from_numpy(np.stack(channel)).to(vertices) for channel in zip(*images, strict=True)]
    return RenderOutput(rgb=stacked[0], alpha=stacked[1], depth_m=stacked[2], face_id=None)


def _lit_scene(pyrender: ModuleType, light: Light) -> Any:
    """An empty scene with the lights, in which the camera stands at the origin."""
    ambient = (light.sky_intensity + light.ground_intensity) / 2
    # A black background keeps colours multiplied by their coverage.
    scene = pyrender.Scene(bg_color=[0.0, 0.0, 0.0, 0.0], ambient_light=[ambient**2.2] * 3)
    for direction, intensity in (
        (light.key_direction, light.key_intensity),
        (light.fill_direction, light.fill_intensity),
    ):
        backward = -np.asarray(direction) * TO_OPENGL
        backward = backward / np.linalg.norm(backward)
        side = np.cross([0.0, 1.0, 0.0] if abs(backward[1]) < 0.9 else [1.0, 0.0, 0.0], backward)
        side = side / np.linalg.norm(side)
        pose = np.eye(4)
        pose[:3, :3] = np.stack([side, np.cross(backward, side), backward], axis=1)
        # The shader divides by π, as a Lambertian surface does.
        scene.add(pyrender.DirectionalLight(color=np.ones(3), intensity=np.pi * intensity), pose=pose)
    return scene


def _draw_scene(
    pyrender: ModuleType,
    scene: Any,
    K: Float[Tensor, "3 3"],
    image_size: tuple[int, int],
    scale: int,
    near_m: float,
) -> tuple[
    Float[np.ndarray, "height width 3"],
    Float[np.ndarray, "height width"],
    Float[np.ndarray, "drawn_height drawn_width"],
]:
    """One frame drawn `scale` times as large: rgb and alpha, averaged back to size, and depth as drawn."""
    fx, fy, cx, cy = (float(K[i, j]) * scale for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    height, width = image_size[0] * scale, image_size[1] * scale
    camera = pyrender.IntrinsicsCamera(fx, fy, cx, cy, znear=near_m, zfar=near_m * FAR_TO_NEAR)
    node = scene.add(camera, pose=np.eye(4))
    renderer = _shared_renderer(pyrender, width, height)
    with _platform_variable(platform()):  # without framebuffers, a new size makes pyrender open a new context
        color, depth_m = renderer.render(scene, flags=pyrender.RenderFlags.RGBA)
    scene.remove_node(node)
    rgb = color[..., :3].astype(np.float32) / 255
    covered = (depth_m > 0).astype(np.float32)
    # OSMesa's buffer has no alpha worth reading; EGL's holds the coverage of its four samples.
    alpha = color[..., 3].astype(np.float32) / 255 if platform() == "egl" else covered
    blocks = (image_size[0], scale, image_size[1], scale)
    return rgb.reshape(*blocks, 3).mean((1, 3)), alpha.reshape(blocks).mean((1, 3)), depth_m


def _shared_renderer(pyrender: ModuleType, width: int, height: int) -> Any:
    global _renderer
    if _renderer is None:
        name = platform()
        try:
            with _platform_variable(name):
                _renderer = pyrender.OffscreenRenderer(width, height)
        except (
            Exception
        ) as error:  # PyOpenGL raises its own, ctypes', and attribute errors for a missing library
            remedy = OSMESA_REMEDY if name == "osmesa" else SYSTEM_PACKAGES
            raise RuntimeError(
                f"pyrender cannot open an OpenGL context on the platform {name!r} "
                f"({type(error).__name__}: {error}). Install what it needs with {remedy}, choose the other "
                "platform with PYOPENGL_PLATFORM=egl or osmesa, or use renderer='torch', which needs nothing."
            ) from error
        logger.info("pyrender draws with the OpenGL platform %r", name)
    _renderer.viewport_width, _renderer.viewport_height = width, height
    return _renderer


def _import_pyrender() -> ModuleType:
    """Import pyrender without its viewer, which would need a window system and pyglet."""
    if "pyrender" in sys.modules:
        return sys.modules["pyrender"]
    stub = ModuleType("pyrender.viewer")
    stub.__dict__["Viewer"] = None
    sys.modules["pyrender.viewer"] = stub
    try:
        with _platform_variable(platform()):
            pyrender = importlib.import_module("pyrender")
        # Whoever wants the viewer later imports pyrender.viewer and gets the real one, or its own error.
        del pyrender.Viewer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"renderer='pyrender' needs pyrender ({error}): `pip install pyrender`, and on Linux "
            f"{SYSTEM_PACKAGES}; or use renderer='torch', which needs nothing."
        ) from error
    except (ImportError, OSError, AttributeError) as error:  # how PyOpenGL reports a missing GL library
        raise RuntimeError(
            f"pyrender is installed but PyOpenGL finds no OpenGL library ({error}). Install it with "
            f"{SYSTEM_PACKAGES}, or use renderer='torch', which needs nothing."
        ) from error
    finally:
        del sys.modules["pyrender.viewer"]
    return pyrender


@contextmanager
def _platform_variable(name: str) -> Iterator[None]:
    """PYOPENGL_PLATFORM is `name` inside and what it was outside."""
    before = os.environ.get("PYOPENGL_PLATFORM")
    if name != "pyglet":
        os.environ["PYOPENGL_PLATFORM"] = name
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("PYOPENGL_PLATFORM", None)
        else:
            os.environ["PYOPENGL_PLATFORM"] = before
