"""What files with a skeleton and its motion ask of that motion."""

from pathlib import Path

from body_models.parameters import BodyParameters


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
