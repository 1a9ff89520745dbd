"""Trained mesh models as files (`core.weights`), and those that come with the project."""

from pathlib import Path

from body_models.smpl import SmplBody
from core.weights import ClipFormat, load_model
from mesh_head.mesh_recovery import InferenceModel, MeshRecovery
from mesh_head.smpl_head import FlattenedSmplHead, SmplHead

HEADS: dict[str, type[SmplHead | FlattenedSmplHead]] = {
    f"{cls.__module__}.{cls.__qualname__}": cls for cls in (SmplHead, FlattenedSmplHead)
}
SHIPPED = {
    "shipped": "ssr_stf_tiny_motion.safetensors",
    "shipped_lifting": "ssr_stf_tiny_lifting.safetensors",
}


def find_weights(name: str | Path) -> Path:
    """The names in `SHIPPED` are the files that come with the project; anything else is a path."""
    file = SHIPPED.get(str(name))
    return Path(name) if file is None else Path(__file__).parent / "shipped" / file


def load_mesh_model(path: str | Path) -> tuple[MeshRecovery, ClipFormat]:
    """`core.weights.load_model` for a file of tools/train_mesh.py."""
    return load_model(path, MeshRecovery, HEADS)


def load_model_for(
    path: str | Path, body: SmplBody, *, mirror_test: bool, body_gender: str | None = None
) -> tuple[InferenceModel, ClipFormat, str | None]:
    """As `load_mesh_model`, for use with a body, which need not be the one that the model was trained with.

    Betas mean something for one body model only; with another one the model gives the mean shape, and the third
    result is a sentence that says so. With a body of another gender (`body_gender`; None: not told) the betas
    stay, and the sentence says that they make other shapes. Files that do not name their body are of the open,
    neutral one.
    """
    model, clip = load_mesh_model(path)
    trained, given = clip.get("body_model", "open"), body.model_name
    of_gender, remark = clip.get("gender", "neutral"), None
    if trained != given:
        remark = (
            f"{path} was trained with the body model {trained}; its betas mean nothing to {given}, so bodies have "
            "the mean shape."
        )
    elif body_gender not in (None, of_gender):
        remark = (
            f"{path} was trained with the {of_gender} body; the {body_gender} one makes other shapes of the same "
            "betas, so do not rely on people's height."
        )
    in_use = InferenceModel(model, with_betas=trained == given, mirror_test=mirror_test)
    return in_use.eval(), clip, remark
