"""What is installed and usable here, and whether the default job can run. Imports nothing that may be missing."""

import importlib.metadata
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
_LEAST_PYTHON = (3, 11)
# Distribution: what it unlocks, how to get it. None of them is needed.
_OPTIONAL = {
    "smplx": ("body_model=smplx", "pip install smplx (non-commercial licence)"),
    "anny": ("building the open body anew", 'pip install -e ".[open-body-builder]"'),
}


@dataclass(frozen=True)
class Check:
    """One line of the table.

    Attributes:
        name: What was looked at.
        state: What was found.
        is_usable: Whether it works.
        is_needed: Whether the default job needs it.
        unlocks: What it is for.
        remedy: What to do where it does not work.
    """

    name: str
    state: str
    is_usable: bool
    is_needed: bool
    unlocks: str
    remedy: str = ""


def examine() -> list[Check]:
    """All checks, in the order of the table."""
    return [_python(), *_needed_packages(), _devices(), *_renderers(), *_optional_packages(), *_shipped()]


def can_run_the_default_job(checks: list[Check]) -> bool:
    """Whether `tools/predict_mesh.py input=…`, as it ships, finds all that it needs."""
    return all(check.is_usable for check in checks if check.is_needed)


def _python() -> Check:
    is_usable = sys.version_info >= _LEAST_PYTHON
    state = f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    return Check("python", state, is_usable, True, "everything", "install Python 3.11 or later")


def _needed_packages() -> list[Check]:
    import tomllib

    project = tomllib.loads(_PYPROJECT.read_text(encoding="utf-8"))["project"]
    checks = []
    for requirement in project["dependencies"]:
        name, *least = re.findall(r"^[\w.-]+|(?<=>=)[\d.]+", requirement)
        version = _version(name)
        is_usable = version is not None and all(_numbers(version) >= _numbers(number) for number in least)
        state = version or "not installed"
        remedy = f'pip install "{requirement}"'
        checks.append(Check(name, state, is_usable, True, "everything", remedy))
    return checks


def _optional_packages() -> list[Check]:
    return [
        Check(name, _version(name) or "not installed", _version(name) is not None, False, unlocks, remedy)
        for name, (unlocks, remedy) in _OPTIONAL.items()
    ]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.split("+")[0])[:3]]


def _devices() -> Check:
    def describe() -> str:
        import torch

        from core.run_folder import describe_device

        devices = [describe_device(torch.device("cpu"))]
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            devices.append(f"cuda:{index} {properties.name} ({properties.total_memory / 2**30:.0f} GiB)")
        if torch.backends.mps.is_available():
            devices.append("mps (not used: device=cpu or cuda)")
        return ", ".join(devices)

    return _attempt("devices", describe, "device=…", "", is_needed=True)


def _renderers() -> list[Check]:
    def draw(renderer: str) -> str:
        from body_models.render import require_renderer

        require_renderer(renderer)
        return "draws"

    def pytorch3d() -> str:
        import pytorch3d

        return f"{pytorch3d.__version__}, {draw('pytorch3d')}"

    def pyrender() -> str:
        if (version := _version("pyrender")) is None:
            raise ImportError("not installed")
        from body_models.render.pyrender_backend import platform as gl_platform

        return f"{version}, OpenGL platform {gl_platform()}, {draw('pyrender')}"

    return [
        _attempt(
            "renderer torch", lambda: draw("torch"), "pictures", "see docs/rendering.md", is_needed=True
        ),
        _attempt("PyTorch3D", pytorch3d, "renderer=pytorch3d, soft silhouettes", "see docs/rendering.md"),
        _attempt(
            "pyrender", pyrender, "renderer=pyrender", 'pip install -e ".[pyrender]"; see docs/rendering.md'
        ),
    ]


def _shipped() -> list[Check]:
    def open_body() -> str:
        from body_models.open_body import load_open_body

        return f"{load_open_body().num_vertices} vertices"

    def weights() -> str:
        from mesh_head.weights import find_weights, load_mesh_model

        model, _ = load_mesh_model(find_weights("shipped"))
        return f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters"

    def lifting_weights() -> str:
        from core.ssr_stf.lifting import load_lifting_model
        from mesh_head.weights import find_weights

        model, _ = load_lifting_model(find_weights("shipped_lifting"))
        return f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters"

    remedy = "check the project out again: the file comes with it"
    return [
        _attempt("open body", open_body, "body_model=open", remedy, is_needed=True),
        _attempt("shipped weights", weights, "predicting without training", remedy, is_needed=True),
        _attempt("shipped lifting weights", lifting_weights, "tools/predict_pose.py", remedy),
    ]


def _attempt(
    name: str, work: Callable[[], str], unlocks: str, remedy: str, *, is_needed: bool = False
) -> Check:
    """A check that is usable if `work`, which describes what it found, succeeds."""
    try:
        return Check(name, work(), True, is_needed, unlocks)
    except Exception as error:  # whatever is broken in someone's installation, the table is to be seen
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Check(name, lines[0], False, is_needed, unlocks, remedy)
