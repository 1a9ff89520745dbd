"""Trained mesh models as files (`core.weights`), and the one that comes with the project."""

import json
from pathlib import Path

from core.weights import BACKBONES, ClipFormat, build_part, load_checked, read_weights
from mesh_head.mesh_recovery import MeshRecovery
from mesh_head.smpl_head import FlattenedSmplHead, SmplHead

HEADS: dict[str, type[SmplHead | FlattenedSmplHead]] = {
    f"{cls.__module__}.{cls.__qualname__}": cls for cls in (SmplHead, FlattenedSmplHead)
}
SHIPPED_WEIGHTS = Path(__file__).parent / "shipped" / "ssr_stf_tiny_motion.safetensors"


def find_weights(name: str | Path) -> Path:
    """`shipped` is the file that comes with the project; anything else is a path."""
    return SHIPPED_WEIGHTS if str(name) == "shipped" else Path(name)


def load_model(path: str | Path) -> tuple[MeshRecovery, ClipFormat]:
    """The model of a weights file, in evaluation mode and single precision.

    Raises:
        ValueError: the file is missing, is no weights file of this project, or does not fit the model that it
            names.
    """
    state, metadata = read_weights(path)
    model = MeshRecovery(
        backbone=build_part(path, BACKBONES, json.loads(metadata["backbone"])),
        head=build_part(path, HEADS, json.loads(metadata["head"])),
    )
    load_checked(model, state, path)
    return model.eval(), json.loads(metadata["clip"])
