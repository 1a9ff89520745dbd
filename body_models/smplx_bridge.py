"""SMPL as the smplx package computes it, behind the interface of our own layer.

The package (Pavlakos et al., github.com/vchoutas/smplx, non-commercial research licence) is the reference of the
field. It opens model files with pickle; here it is given arrays that were read without, and never sees the file.
"""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from body_models.parameters import NUM_JOINTS, BodyParameters
from body_models.smpl import BodyMesh, SmplArrays, SmplBody

# The package cuts the betas of models with fewer than 300 to ten.
_NUM_BETAS = 10


class SmplxBody(SmplBody):
    """`forward` is smplx's; what it has no counterpart for (`joints`, `restricted_to`) is our layer's.

    No array of it enters a checkpoint: the package's module, whose buffers would, is not a submodule.
    """

    def __init__(self, arrays: SmplArrays, dtype: torch.dtype = torch.float32) -> None:
        """
        Raises:
            ValueError: the smplx package is not installed.
        """
        super().__init__(arrays, dtype)

    def forward(self, parameters: BodyParameters) -> BodyMesh:
        """As `SmplBody.forward`, to rounding."""
        shaped = self.shape(parameters.betas)
        rotmat, translation_m = parameters.rotmat.to(self.dtype), parameters.translation_m.to(self.dtype)
        batch_shape = torch.broadcast_shapes(
            shaped.betas.shape[:-1], rotmat.shape[:-3], translation_m.shape[:-1]
        )
        rotmat = rotmat.expand(*batch_shape, -1, -1, -1).reshape(-1, NUM_JOINTS, 3, 3)
        with torch.autocast(self.device.type, enabled=False):
            posed = self._package_model[0](
                betas=shaped.betas.expand(*batch_shape, -1).reshape(-1, self.num_betas),
                global_orient=rotmat[:, :1],
                body_pose=rotmat[:, 1:],
                transl=translation_m.expand(*batch_shape, -1).reshape(-1, 3),
                pose2rot=False,
            )
        return BodyMesh(
            vertices_m=posed.vertices.reshape(*batch_shape, self.num_vertices, 3),
            joints_m=posed.joints[:, :NUM_JOINTS].reshape(*batch_shape, NUM_JOINTS, 3),
        )

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SmplxBody":
        super()._apply(fn, recurse)
        self._package_model[0].to(self.device)
        return self

    def _set_floating_buffers(self, dtype: torch.dtype, device: torch.device) -> None:
        super()._set_floating_buffers(dtype, device)
        # In a tuple, so that torch does not register it.
        self._package_model = (_package_model(self.arrays, dtype).to(device),)


def load_smplx_body(path: str | Path, *, gender: str | None = None) -> SmplxBody:
    """SMPL from a model file or folder, as `model_files.load_body_model`, computed by smplx; ten betas.

    Raises:
        FileNotFoundError, ValueError: as `load_body_model`, and when the package is not installed.
    """
    from body_models.model_files import load_body_model

    return SmplxBody(load_body_model(path, _NUM_BETAS, gender=gender).arrays)


def _package_model(arrays: SmplArrays, dtype: torch.dtype) -> nn.Module:
    try:
        import smplx
        from smplx.utils import Struct
        from smplx.vertex_ids import vertex_ids
    except ImportError as error:
        raise ValueError(
            f"body_model=smplx needs the smplx package ({error}): pip install smplx, under its non-commercial "
            "licence; body_model=smpl gives the same bodies without it."
        ) from error

    content = Struct(
        v_template=arrays.v_template,
        shapedirs=arrays.shapedirs,
        posedirs=arrays.posedirs,
        weights=arrays.lbs_weights,
        J_regressor=arrays.J_regressor,
        f=arrays.faces,
        kintree_table=[[*arrays.parents], [*range(len(arrays.parents))]],
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that the model has ten betas
        return smplx.create(
            "smpl_neutral",  # no file: it only tells the package the kind of model
            data_struct=content,
            num_betas=arrays.shapedirs.shape[-1],
            dtype=dtype,
            create_betas=False,
            create_global_orient=False,
            create_body_pose=False,
            create_transl=False,
            # Face and toe vertices it adds as joints; they are cut off above.
            vertex_ids=dict.fromkeys(vertex_ids["smplh"], 0),
        )
