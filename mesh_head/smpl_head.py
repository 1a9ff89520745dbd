"""Pose features to SMPL parameters.

Shapes: B clips, T frames, J joints (feature tokens per frame), C channels.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from body_models.parameters import NUM_JOINTS, BodyParameters
from core.linear import Linear, without_autocast
from core.muon import matrices_of_linear_maps
from core.rotations import rot6d_to_rotmat, rotmat_along_chain, rotmat_from_parent, rotmat_to_rot6d
from core.settings import require_choice, require_number
from core.skeleton import SMPL_24

RotationFrame = Literal["crop", "parent"]

# A camera-frame root rotation of a body that faces the camera: half a turn about x (y up becomes y down).
FACING_CAMERA = ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0))


class SmplHead(nn.Module):
    """Slim regression head: every frame's tokens to 24 rotations, the clip's mean to one shape.

    The tokens are narrowed one by one before they are joined, which keeps the head below a million
    parameters where flattening them as they are takes 18 million (`FlattenedSmplHead`).

    Args:
        num_tokens: feature tokens per frame, J.
        dim_representation: channels of the features, C.
        dim_token: channels a token is narrowed to.
        dim_hidden: hidden channels per frame.
        num_betas: shape coefficients.
        rotation_frame: of what `RotationOutput` predicts.

    Raises:
        ValueError: a size below 1, or an unknown frame.
    """

    def __init__(
        self,
        *,
        num_tokens: int,
        dim_representation: int,
        dim_token: int,
        dim_hidden: int,
        num_betas: int,
        rotation_frame: RotationFrame = "parent",  # of weights files that do not say
    ) -> None:
        super().__init__()
        _require_sizes(
            num_tokens=num_tokens,
            dim_representation=dim_representation,
            dim_token=dim_token,
            dim_hidden=dim_hidden,
            num_betas=num_betas,
        )
        self.num_tokens = num_tokens
        self.dim_representation = dim_representation
        self.narrow = Linear(dim_representation, dim_token)
        self.hidden = Linear(num_tokens * dim_token, dim_hidden)
        self.norm = nn.LayerNorm(dim_hidden)
        self.pose = RotationOutput(dim_hidden, rotation_frame)
        self.betas = _small_linear(dim_hidden, num_betas)

    def check_batch_sizes(self, sizes: Sequence[int]) -> None:
        """ValueError if it cannot be trained on batches of one of these numbers of clips."""

    def muon_matrices(self) -> list[nn.Parameter]:
        """What `core.muon` trains: all of its linear maps, the output layers, too (LOG.md, 2026-11-23)."""
        return matrices_of_linear_maps(self)

    def forward(self, features: Float[Tensor, "clip frame token channel"]) -> BodyParameters:
        """Root rotation in the crop frame, body rotations, betas (B, 1, 10), translation zero (B, T, 3)."""
        hidden = self.norm(F.gelu(self.hidden(self.narrow(features).flatten(-2))))
        return self.pose(hidden, self.betas(hidden.mean(dim=1, keepdim=True)))

    def set_mean_pose(self, body_rotmat: Float[Tensor, "23 3 3"]) -> None:
        """The pose an untrained head predicts, facing the camera."""
        self.pose.set_mean_pose(body_rotmat)

    def mean_pose_model(self) -> "ConstantPose":
        """The mean pose of the motion that the head was trained on, as a model of its own."""
        return self.pose.mean_pose_model(self.betas.out_features)


class FlattenedSmplHead(nn.Module):
    """MotionBERT's regression head, for comparison: flattened tokens, one wide layer each for pose and shape.

    Zhu et al., "MotionBERT: A Unified Perspective on Learning Human Motion Representations", ICCV 2023. With
    17 tokens of 512 channels and 1024 hidden ones it has 18 M parameters.

    Raises:
        ValueError: a size below 1, or a dropout outside [0, 1).
    """

    def __init__(
        self, *, num_tokens: int, dim_representation: int, dim_hidden: int, dropout: float, num_betas: int
    ) -> None:
        super().__init__()
        _require_sizes(
            num_tokens=num_tokens,
            dim_representation=dim_representation,
            dim_hidden=dim_hidden,
            num_betas=num_betas,
        )
        require_number("head.dropout", dropout, least=0.0, below=1.0)
        self.num_tokens = num_tokens
        self.dim_representation = dim_representation
        dim_flat = num_tokens * dim_representation
        self.dropout = nn.Dropout(dropout)
        self.pose_hidden = nn.Linear(dim_flat, dim_hidden)
        self.pose_norm = nn.BatchNorm1d(dim_hidden)
        self.pose = RotationOutput(dim_hidden, "parent")
        self.shape_hidden = nn.Linear(dim_flat, dim_hidden)
        self.shape_norm = nn.BatchNorm1d(dim_hidden)
        self.betas = _small_linear(dim_hidden, num_betas)

    def check_batch_sizes(self, sizes: Sequence[int]) -> None:
        """As `SmplHead`."""
        # A clip has one shape, whose hidden channels are normalised over those of the batch: one has no variance.
        if 1 in sizes:
            raise ValueError(
                "The curriculum has a phase with batch_size=1, and head=flattened normalises over the clips of a "
                "batch; give batches of 2 clips or more, or head=slim."
            )

    def muon_matrices(self) -> list[nn.Parameter]:
        """As `SmplHead`."""
        return matrices_of_linear_maps(self)

    def forward(self, features: Float[Tensor, "clip frame token channel"]) -> BodyParameters:
        """As `SmplHead`."""
        flat = self.dropout(features.flatten(-2))
        pose = self.pose_norm(self.pose_hidden(flat).flatten(0, 1)).relu().unflatten(0, flat.shape[:2])
        shape = self.shape_norm(self.shape_hidden(flat.mean(dim=1))).relu()
        return self.pose(pose, self.betas(shape)[:, None])

    def set_mean_pose(self, body_rotmat: Float[Tensor, "23 3 3"]) -> None:
        """As `SmplHead`."""
        self.pose.set_mean_pose(body_rotmat)

    def mean_pose_model(self) -> "ConstantPose":
        """As `SmplHead`."""
        return self.pose.mean_pose_model(self.betas.out_features)


def _require_sizes(**sizes: int) -> None:
    for key, size in sizes.items():
        require_number(f"head.{key}", size, least=1, whole=True)


class RotationOutput(nn.Module):
    """Hidden channels to 24 rotations in the project's 6D layout, as offsets from a mean pose.

    Args:
        dim_hidden: channels.
        frame: of the rotations that are predicted, the root's apart, which is always in the crop frame. "parent":
            relative to the parent joint, as they leave the head. "crop": in the crop frame like the root's, where a
            limb's direction follows from its own joints' places alone; they are made relative afterwards.

    Raises:
        ValueError: an unknown frame.
    """

    mean_rot6d: Tensor

    def __init__(self, dim_hidden: int, frame: RotationFrame) -> None:
        super().__init__()
        require_choice("head.rotation_frame", frame, get_args(RotationFrame))
        self.frame = frame
        self.linear = _small_linear(dim_hidden, NUM_JOINTS * 6)
        self.register_buffer("mean_rot6d", torch.zeros(NUM_JOINTS, 6))
        self.set_mean_pose(torch.eye(3).repeat(NUM_JOINTS - 1, 1, 1))

    def set_mean_pose(self, body_rotmat: Float[Tensor, "23 3 3"]) -> None:
        facing = self.mean_rot6d.new_tensor(FACING_CAMERA)
        rotmat = torch.cat([facing[None], body_rotmat.to(facing)])
        if self.frame == "crop":
            rotmat = rotmat_along_chain(rotmat, SMPL_24.parents)
        self.mean_rot6d.copy_(rotmat_to_rot6d(rotmat))

    def mean_pose_model(self, num_betas: int) -> "ConstantPose":
        """A model that predicts the mean pose alone."""
        rotmat = self._to_parents(rot6d_to_rotmat(self.mean_rot6d))
        return ConstantPose(rotmat[0], rotmat[1:], num_betas)

    def _to_parents(self, rotmat: Float[Tensor, "*batch 24 3 3"]) -> Float[Tensor, "*batch 24 3 3"]:
        return rotmat if self.frame == "parent" else rotmat_from_parent(rotmat, SMPL_24.parents)

    def forward(
        self, hidden: Float[Tensor, "clip frame dim"], betas: Float[Tensor, "clip 1 beta"]
    ) -> BodyParameters:
        """Assembles the parameters; a translation is not the head's to know and stays zero."""
        # Always in single precision: orthogonalisation under a half-precision autocast loses the angles.
        with without_autocast(hidden):
            offsets = self.linear(hidden.to(self.linear.weight.dtype)).unflatten(-1, (NUM_JOINTS, 6))
            rotmat = self._to_parents(rot6d_to_rotmat(self.mean_rot6d + offsets))
        return BodyParameters(
            root_rotmat=rotmat[..., 0, :, :],
            body_rotmat=rotmat[..., 1:, :, :],
            betas=betas.to(rotmat.dtype),
            translation_m=torch.zeros_like(rotmat[..., 0, :, 0]),
        )


def _small_linear(in_features: int, out_features: int) -> nn.Linear:
    """A last layer that starts near zero, so that training starts at the mean."""
    linear = nn.Linear(in_features, out_features)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear


class ConstantPose(nn.Module):
    """Predicts one pose in mean shape whatever it sees: the baseline of every evaluation."""

    root_rotmat: Tensor
    body_rotmat: Tensor

    def __init__(
        self, root_rotmat: Float[Tensor, "3 3"], body_rotmat: Float[Tensor, "23 3 3"], num_betas: int
    ) -> None:
        super().__init__()
        self.num_betas = num_betas
        self.register_buffer("root_rotmat", root_rotmat)
        self.register_buffer("body_rotmat", body_rotmat)

    def forward(self, keypoints: Float[Tensor, "clip frame joint 3"]) -> BodyParameters:
        batch_shape = keypoints.shape[:2]
        return BodyParameters(
            root_rotmat=self.root_rotmat.expand(*batch_shape, 3, 3),
            body_rotmat=self.body_rotmat.expand(*batch_shape, 23, 3, 3),
            betas=keypoints.new_zeros(batch_shape[0], 1, self.num_betas),
            translation_m=keypoints.new_zeros(*batch_shape, 3),
        )
