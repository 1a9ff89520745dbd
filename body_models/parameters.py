"""What moves and shapes an SMPL body: rotations, shape coefficients and a translation."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.rotations import rotmat_to_rotvec, rotvec_to_rotmat

NUM_JOINTS = 24
NUM_BODY_JOINTS = NUM_JOINTS - 1


@dataclass(frozen=True)
class BodyParameters:
    """SMPL parameters of any batch shape. The frame is that of the root rotation: camera or world.

    Attributes:
        root_rotmat: the pelvis' orientation, which takes body axes (x to the body's left, y up, z forward)
            to the frame.
        body_rotmat: the 23 other joints in SMPL's order, each relative to its parent.
        betas: shape coefficients; their batch shape may broadcast: (clip, 1, 10) against (clip, frame, …).
        translation_m: added to every posed point: the pelvis lies at its rest position plus this.
    """

    root_rotmat: Float[Tensor, "*batch 3 3"]
    body_rotmat: Float[Tensor, "*batch 23 3 3"]
    betas: Float[Tensor, "*#batch beta"]
    translation_m: Float[Tensor, "*#batch 3"]

    @staticmethod
    def from_rotvec(
        pose_rotvec: Float[Tensor, "*batch 24 3"],
        betas: Float[Tensor, "*#batch beta"],
        translation_m: Float[Tensor, "*#batch 3"] | None = None,
    ) -> "BodyParameters":
        """From SMPL's axis-angle pose in radians, root first, as motion files hold it."""
        rotmat = rotvec_to_rotmat(pose_rotvec)
        if translation_m is None:
            translation_m = torch.zeros_like(pose_rotvec[..., 0, :])
        return BodyParameters(rotmat[..., 0, :, :], rotmat[..., 1:, :, :], betas, translation_m)

    @staticmethod
    def rest(
        batch_shape: tuple[int, ...] = (),
        num_betas: int = 10,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> "BodyParameters":
        """The mean shape in rest pose (T-pose) at the origin."""
        identity = torch.eye(3, dtype=dtype, device=device)
        return BodyParameters(
            root_rotmat=identity.expand(*batch_shape, 3, 3),
            body_rotmat=identity.expand(*batch_shape, NUM_BODY_JOINTS, 3, 3),
            betas=torch.zeros(*batch_shape, num_betas, dtype=dtype, device=device),
            translation_m=torch.zeros(*batch_shape, 3, dtype=dtype, device=device),
        )

    @property
    def batch_shape(self) -> torch.Size:
        return self.root_rotmat.shape[:-2]

    @property
    def rotmat(self) -> Float[Tensor, "*batch 24 3 3"]:
        """All 24 joint rotations, root first."""
        return torch.cat([self.root_rotmat[..., None, :, :], self.body_rotmat], dim=-3)

    @property
    def pose_rotvec(self) -> Float[Tensor, "*batch 24 3"]:
        """SMPL's axis-angle pose in radians, root first; the inverse of `from_rotvec`."""
        return rotmat_to_rotvec(self.rotmat)

    def select(self, items: slice | list[int] | Int[Tensor, "item"]) -> "BodyParameters":
        """Some items of the first batch dimension; what all of them share stays as it is."""
        num_batch_dims, num_items = len(self.batch_shape), len(self.root_rotmat)

        def selected(value: Tensor, num_own_dims: int) -> Tensor:
            is_shared = value.ndim - num_own_dims < num_batch_dims or len(value) == 1 < num_items
            return value if is_shared else value[items]

        return BodyParameters(
            root_rotmat=selected(self.root_rotmat, 2),
            body_rotmat=selected(self.body_rotmat, 3),
            betas=selected(self.betas, 1),
            translation_m=selected(self.translation_m, 1),
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "BodyParameters":
        return BodyParameters(
            **{field.name: getattr(self, field.name).to(device=device, dtype=dtype) for field in fields(self)}
        )

    def detach(self) -> "BodyParameters":
        return BodyParameters(**{field.name: getattr(self, field.name).detach() for field in fields(self)})
