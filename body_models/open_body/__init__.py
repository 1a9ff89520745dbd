"""The open body: an SMPL-format body that anybody may use (CC0 shapes, Apache-2.0 code; see NOTICE).

`docs/open_body.md` says how it was made and measured; `tools/build_open_body.py` rebuilds it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from body_models.joint_regressors import JointRegressor
    from body_models.smpl import SmplBody

_DIRECTORY = Path(__file__).resolve().parent
_SKELETON_NAMES = ("h36m_17", "coco_17")


def open_body_path(gender: str = "neutral") -> Path:
    """The shipped npz of the open body, in SMPL's layout; metres, T-pose, y up, facing +z.

    Raises:
        ValueError: no body is shipped for `gender`.
    """
    path = _DIRECTORY / f"{gender}.npz"
    shipped = sorted(file.stem for file in _DIRECTORY.glob("*.npz"))
    if gender not in shipped:
        raise ValueError(f"There is no open body called '{gender}': choose one of {', '.join(shipped)}.")
    return path


def load_open_body(gender: str = "neutral") -> "SmplBody":
    """The open body as an SMPL layer.

    Raises:
        ValueError: no body is shipped for `gender`.
    """
    from body_models.smpl import SmplBody

    return SmplBody.from_file(open_body_path(gender))


def load_open_body_regressor(skeleton: str, gender: str = "neutral") -> "JointRegressor":
    """From the open body's vertices to the joints of the skeleton `h36m_17` or `coco_17`.

    Raises:
        ValueError: there is no regressor for `skeleton`, or no body is shipped for `gender`.
    """
    import torch

    from body_models.joint_regressors import JointRegressor
    from core.skeleton import SKELETONS

    if skeleton not in _SKELETON_NAMES:
        raise ValueError(
            f"The open body has no regressor for the skeleton '{skeleton}': "
            f"choose one of {', '.join(_SKELETON_NAMES)}."
        )
    with np.load(open_body_path(gender), allow_pickle=False) as arrays:
        weights = torch.from_numpy(arrays[f"J_regressor_{skeleton}"])
    return JointRegressor(SKELETONS[skeleton], weights)
