"""The 3D-pose head: pose features to joint positions."""

from jaxtyping import Float
from torch import Tensor, nn


class LiftingHead(nn.Module):
    """Linear head from pose features to 3D joints (MotionBERT, MotionAGFormer).

    The unit is that of the training targets: metres, camera axes, relative to the root joint, unless a
    protocol says otherwise.
    """

    def __init__(self, *, dim_representation: int) -> None:
        super().__init__()
        self.out = nn.Linear(dim_representation, 3)

    def forward(self, features: Float[Tensor, "*batch joint dim"]) -> Float[Tensor, "*batch joint 3"]:
        """3D joint positions."""
        return self.out(features)
