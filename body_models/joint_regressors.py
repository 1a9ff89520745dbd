"""From a body's vertices to the joints of a skeleton."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from body_models.model_files import files_below, find_smpl_model, read_model_arrays
from core.skeleton import H36M_17, Skeleton

# SPIN's file lists the left leg first; that of Pose2Mesh and MotionBERT is the same, right leg first.
_H36M_FILES = ("J_regressor_h36m.npy", "J_regressor_h36m_correct.npy")
_EXCHANGED_LEGS = (0, 4, 5, 6, 1, 2, 3, *range(7, 17))
_ROW_SUM_TOLERANCE = 0.05


class JointRegressor(nn.Module):
    """Each joint of `skeleton` as a weighted sum of vertices.

    Only the vertices with a weight are read. Where nothing else of a body is needed, skin only those:
    `regressor.restricted()(body.restricted_to(regressor.support)(parameters).vertices_m)`.
    """

    support: Tensor  # (support,), ascending ids of the vertices with a non-zero weight
    support_weights: Tensor  # (joint, support)

    def __init__(
        self,
        skeleton: Skeleton,
        weights: Float[Tensor, "joint vertex"],
    ) -> None:
        """
        Args:
            weights: dense or sparse (torch layout), with a row per joint of the skeleton.
        """
        super().__init__()
        weights = weights.to_dense()
        if weights.shape[0] != skeleton.num_joints:
            raise ValueError(
                f"A joint regressor for {skeleton.name} needs {skeleton.num_joints} rows, "
                f"one per joint, but the weights have {weights.shape[0]}."
            )
        self.skeleton = skeleton
        self.num_vertices = weights.shape[1]
        support = weights.any(dim=0).nonzero()[:, 0]
        self.register_buffer("support", support, persistent=False)
        self.register_buffer("support_weights", weights[:, support].contiguous(), persistent=False)

    def forward(self, vertices_m: Float[Tensor, "*batch vertex 3"]) -> Float[Tensor, "*batch joint 3"]:
        """The joints in the vertices' frame and unit.

        Raises:
            ValueError: the vertices are not those of the mesh that the regressor was made for.
        """
        if vertices_m.shape[-2] != self.num_vertices:
            raise ValueError(
                f"This {self.skeleton.name} regressor is made for a mesh of {self.num_vertices} vertices, "
                f"not {vertices_m.shape[-2]}: take the regressor that comes with the body model."
            )
        is_whole_mesh_needed = len(self.support) == self.num_vertices
        support_m = vertices_m if is_whole_mesh_needed else vertices_m.index_select(-2, self.support)
        return self.support_weights @ support_m

    def restricted(self) -> "JointRegressor":
        """The same joints from the support's vertices alone, in the order of `support`."""
        return JointRegressor(self.skeleton, self.support_weights)


def load_h36m_regressor(
    model_path: str | Path, regressor_path: str | Path | None = None, *, gender: str | None = None
) -> JointRegressor:
    """From SMPL's vertices to H36M_17, whichever leg the file lists first.

    Args:
        model_path, gender: of the body model, as for `model_files.find_smpl_model`.
        regressor_path: `J_regressor_h36m.npy` of SPIN or `J_regressor_h36m_correct.npy` of Pose2Mesh and
            MotionBERT, both (17, V); None looks for one of them with `find_h36m_regressor`.

    Raises:
        FileNotFoundError: there is no such model or regressor.
        ValueError: a file is damaged, or the regressor is not one of Human3.6M's joints for this body.
    """
    model_file = find_smpl_model(model_path, gender)
    if regressor_path is None:
        regressor_path = find_h36m_regressor(model_path if Path(model_path).is_dir() else model_file.parent)
    v_template = read_model_arrays(model_file)["v_template"]
    return JointRegressor(H36M_17, torch.from_numpy(read_h36m_regressor(regressor_path, v_template)).float())


def find_h36m_regressor(folder: str | Path) -> Path:
    """A regressor of Human3.6M's joints in a folder or below it, or else in the folder around it.

    Raises:
        FileNotFoundError: there is none; says where to get it.
    """
    folder = Path(folder).absolute()
    found = [str(file) for _, file in sorted(files_below(folder)) if file.name in _H36M_FILES]
    found += [str(folder.parent / name) for name in _H36M_FILES if (folder.parent / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"Neither {' nor '.join(_H36M_FILES)} lies in or beside {folder}, and SMPL's own files hold no "
            "regressor of Human3.6M's joints: the first is in SPIN's data (github.com/nkolot/SPIN, "
            "fetch_data.sh); put it beside the body model, or name it with body_model.regressor_path."
        )
    return Path(found[0])


def read_h36m_regressor(
    path: str | Path, v_template: Float[np.ndarray, "vertex 3"]
) -> Float[np.ndarray, "17 vertex"]:
    """The rows of a regressor file in the order of H36M_17, as float64.

    Which leg a file lists first is seen on the body: +x is its left.

    Args:
        path: a .npy (17, V).
        v_template: of the body model that the regressor is for; metres, y up, facing +z.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, is for another mesh, or its joints are not Human3.6M's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no joint regressor {path}.")
    try:
        # Mapped: a header that announces more than the file holds is refused before anything is allocated.
        weights = np.array(np.lib.format.open_memmap(path, mode="r"))
    except (ValueError, EOFError, OSError, TypeError, ArithmeticError) as error:
        raise ValueError(f"{path} is not a .npy of numbers ({error}); fetch it again.") from None
    expected_shape = (H36M_17.num_joints, len(v_template))
    if weights.shape != expected_shape or weights.dtype.kind != "f" or not np.isfinite(weights).all():
        raise ValueError(
            f"{path} holds {weights.dtype} of shape {weights.shape}; a regressor from this body to Human3.6M's "
            f"joints holds finite floating-point numbers of shape {expected_shape}."
        )
    weights = weights.astype(np.float64)
    worst = int(np.abs(weights.sum(axis=1) - 1).argmax())
    if abs(weights[worst].sum() - 1) > _ROW_SUM_TOLERANCE:
        raise ValueError(
            f"{path}: row {worst} sums to {weights[worst].sum():.6g} instead of 1; fetch the file again."
        )
    if weights[1] @ v_template[:, 0] > 0:
        weights = weights[list(_EXCHANGED_LEGS)]
    joints_m = weights @ v_template
    for joint, name in enumerate(H36M_17.joint_names):
        x_m = joints_m[joint, 0]
        if (name.startswith("left_") and x_m <= 0) or (name.startswith("right_") and x_m >= 0):
            raise ValueError(
                f"{path}: row {joint} should be the {name.replace('_', ' ')} and lies on the body's other side "
                f"(x = {x_m:.3f} m); the rows are not in Human3.6M's order."
            )
    for above, below in (("hip", "knee"), ("knee", "ankle")):
        for side in ("left", "right"):
            rows = [H36M_17.index(f"{side}_{part}") for part in (above, below)]
            if joints_m[rows[0], 1] <= joints_m[rows[1], 1]:
                raise ValueError(
                    f"{path}: the {side} {below} does not lie below the {above}; the rows are not in "
                    "Human3.6M's order."
                )
    return weights
