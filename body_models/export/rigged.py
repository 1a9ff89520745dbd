"""What files with a skeleton and its motion ask of that motion."""

from pathlib import Path

from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody


def require_rigged_motion(path: Path, parameters: BodyParameters, fps: float) -> None:
    """Parameters of batch shape (T,) that a file can hold as one skeleton that moves, one shape: betas (1, beta).

    Raises:
        ValueError: no frame, a number that is not finite, or several shapes.
    """
    if len(parameters.root_rotmat) == 0:
        raise ValueError(f"{path} was not written: there is no frame to write.")
    if parameters.betas.shape[:-1] != (1,):
        raise ValueError(f"{path} was not written: a rig has one shape, betas (1, beta), for all frames.")
    tensors = (parameters.rotmat, parameters.translation_m, parameters.betas)
    if not (all(tensor.isfinite().all() for tensor in tensors) and fps > 0):
        raise ValueError(f"{path} was not written: some of the motion's numbers are not finite.")


def licence_remark(files: str, body: SmplBody) -> str | None:
    """What whoever passes rigged files on should know; None for the open body, which is free."""
    if body.model_name == "open":
        return None
    return (
        f"{files}: a rig holds the body model's template and skinning weights, so the licence of "
        f"{body.model_name} says who may have it."
    )
