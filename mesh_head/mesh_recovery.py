"""The model: 2D keypoint clips in, SMPL parameters out."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from body_models.parameters import BodyParameters
from core.backbone import Backbone, check_backbone_fits
from core.rotations import chordal_mean, mirror_rotmat
from core.skeleton import SMPL_24
from core.ssr_stf.lifting import mirrored
from mesh_head.smpl_head import FlattenedSmplHead, SmplHead


class MeshRecovery(nn.Module):
    """Backbone and head; the body that turns parameters into a mesh stands outside and is never saved.

    Args:
        backbone: (B, T, J, 3) keypoints to (B, T, J', C) features.
        head: features to `BodyParameters`.

    Raises:
        ValueError: they do not fit each other.
    """

    backbone: Backbone
    head: SmplHead | FlattenedSmplHead

    def __init__(self, *, backbone: Backbone, head: SmplHead | FlattenedSmplHead) -> None:
        super().__init__()
        check_backbone_fits(backbone, head.num_tokens, head.dim_representation)
        self.backbone = backbone
        self.head = head

    def forward(self, keypoints: Float[Tensor, "clip frame joint 3"]) -> BodyParameters:
        """SMPL parameters per frame in the clip's crop frame (`core.keypoints.clip`), one shape per clip."""
        parameters: BodyParameters = self.head(self.backbone(keypoints))
        return parameters


class InferenceModel(nn.Module):
    """A trained model as it is used on a body.

    Args:
        model: the trained one.
        with_betas: False gives the mean shape: for a body model other than the one that the betas belong to.
        mirror_test: what the model says of a clip and what it says of its mirror image, mirrored back, are
            averaged (the test-time flip of the lifting literature); twice the time.
    """

    def __init__(self, model: MeshRecovery, *, with_betas: bool, mirror_test: bool) -> None:
        super().__init__()
        self.model = model
        self.with_betas = with_betas
        self.mirror_test = mirror_test

    @property
    def head(self) -> SmplHead | FlattenedSmplHead:
        return self.model.head

    def forward(self, keypoints: Float[Tensor, "clip frame joint 3"]) -> BodyParameters:
        """As `MeshRecovery`; rotations are averaged as chordal means."""
        parameters: BodyParameters = self.model(keypoints)
        if self.mirror_test:
            other = mirrored_parameters(self.model(mirrored(keypoints)))
            parameters = replace(
                parameters,
                root_rotmat=chordal_mean(torch.stack((parameters.root_rotmat, other.root_rotmat)), dim=0),
                body_rotmat=chordal_mean(torch.stack((parameters.body_rotmat, other.body_rotmat)), dim=0),
                betas=(parameters.betas + other.betas) / 2,
            )
        return (
            parameters if self.with_betas else replace(parameters, betas=torch.zeros_like(parameters.betas))
        )


def mirrored_parameters(parameters: BodyParameters) -> BodyParameters:
    """The pose seen in a mirror that negates x; shapes are alike on both sides, the translation is kept."""
    left_for_right = [joint - 1 for joint in SMPL_24.mirror_permutation[1:]]
    return replace(
        parameters,
        root_rotmat=mirror_rotmat(parameters.root_rotmat),
        body_rotmat=mirror_rotmat(parameters.body_rotmat[..., left_for_right, :, :]),
    )
