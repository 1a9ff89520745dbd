"""Policy as tests: the house stands where it should, entry points are short, imports are light."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = sorted((ROOT / "tools").rglob("*.py"))


@pytest.mark.parametrize("package", ["core", "body_models", "mesh_head"])
def test_packages_are_those_of_this_checkout(package: str) -> None:
    module = __import__(package)
    assert module.__file__ is not None
    assert ROOT in Path(module.__file__).resolve().parents


@pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.name)
def test_entry_points_stay_tables_of_contents(tool: Path) -> None:
    assert len(tool.read_text(encoding="utf-8").splitlines()) <= 80


def test_core_and_body_models_do_not_import_training_libraries() -> None:
    code = (
        "import sys, core.ssr_stf.model, core.keypoints.files, core.motion.procedural, body_models.smpl, "
        "body_models.render, body_models.open_body; "
        "print(sorted({'lightning', 'hydra', 'pytorch3d', 'pyrender', 'smplx', 'anny'} & set(sys.modules)))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert printed.stdout.strip() == "[]"
