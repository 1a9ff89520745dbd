"""The model: 2D keypoint clips in, SMPL parameters out."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from body_models.parameters import BodyParameters
from core.residual_mlp import ResidualMlp
from core.ssr_stf.model import SsrStf
from mesh_head.smpl_head import FlattenedSmplHead, SmplHead


class MeshRecovery(nn.Module):
    """Backbone and head; the body that turns parameters into a mesh stands outside and is never saved.

    Args:
        backbone: (B, T, J, 3) keypoints to (B, T, J', C) features.
        head: features to `BodyParameters`.
    """

    backbone: SsrStf | ResidualMlp
    head: SmplHead | FlattenedSmplHead

    def __init__(self, *, backbone: SsrStf | ResidualMlp, head: SmplHead | FlattenedSmplHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, keypoints: Float[Tensor, "clip frame joint 3"]) -> BodyParameters:
        """SMPL parameters per frame in the clip's crop frame (`core.keypoints.clip`), one shape per clip."""
        parameters: BodyParameters = self.head(self.backbone(keypoints))
        return parameters


class MeanShape(nn.Module):
    """A model without its betas, for a body model other than the one whose shape space it was trained on."""

    def __init__(self, model: MeshRecovery) -> None:
        super().__init__()
        self.model = model

    @property
    def head(self) -> SmplHead | FlattenedSmplHead:
        return self.model.head

    def forward(self, keypoints: Float[Tensor, "clip frame joint 3"]) -> BodyParameters:
        parameters: BodyParameters = self.model(keypoints)
        return replace(parameters, betas=torch.zeros_like(parameters.betas))
