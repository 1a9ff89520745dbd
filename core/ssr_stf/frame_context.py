"""Frame context: lets every joint token see its whole frame before the first block.

Tokens that begin with their own three numbers spend hundreds of steps learning whose neighbour is whose; a
fully connected encoder of the frame, as the spatial encoder of P-STMO (Shan et al., ECCV 2022), hands them
that view at once. Its use beside a token transformer is our own.

Shapes: B clips, T frames, J joints, C channels, K numbers per joint.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.ssr_stf.skeleton_attention import replicate_ends

FrameContext = Literal["none", "linear", "residual_mlp"]


class LinearFrameContext(nn.Module):
    """Each joint's own linear map of its frame's J · K numbers."""

    def __init__(self, *, num_joints: int, in_channels: int, dim: int) -> None:
        super().__init__()
        self.out = nn.Linear(num_joints * in_channels, num_joints * dim)

    def forward(
        self, keypoints: Float[Tensor, "batch frame joint channel"]
    ) -> Float[Tensor, "batch frame joint dim"]:
        """What is added to the joint tokens."""
        return self.out(keypoints.flatten(2)).unflatten(2, (keypoints.shape[2], -1))


class ResidualMlpFrameContext(nn.Module):
    """A residual MLP per frame on the numbers of the frames around it.

    A temporal convolution (the clip's ends repeated beyond it, so any T works) to `context_dim`, then
    `context_blocks` residual blocks, then each joint's own linear map. To each token it gives the view that a
    residual MLP on a flattened clip of `context_frames` has.

    Raises:
        ValueError: `context_frames` is even.
    """

    def __init__(
        self,
        *,
        num_joints: int,
        in_channels: int,
        dim: int,
        context_frames: int,
        context_dim: int,
        context_blocks: int,
    ) -> None:
        super().__init__()
        if context_frames % 2 == 0:
            raise ValueError(f"context_frames={context_frames} is even; a centred window is odd.")
        self.context_frames = context_frames
        self.window = nn.Linear(context_frames * num_joints * in_channels, context_dim)
        self.blocks = nn.Sequential(*(ResidualMlpBlock(context_dim) for _ in range(context_blocks)))
        self.norm = nn.LayerNorm(context_dim)
        self.out = nn.Linear(context_dim, num_joints * dim)

    def forward(
        self, keypoints: Float[Tensor, "batch frame joint channel"]
    ) -> Float[Tensor, "batch frame joint dim"]:
        """What is added to the joint tokens."""
        padded = replicate_ends(keypoints.flatten(2), 1, self.context_frames // 2)
        # The convolution as one matrix product over unfolded windows: (B, T, J·K, context_frames).
        windows = padded.unfold(1, self.context_frames, 1).flatten(2)
        x = self.norm(self.blocks(self.window(windows)))
        return self.out(x).unflatten(2, (keypoints.shape[2], -1))


class ResidualMlpBlock(nn.Module):
    """x + W₂ GELU(W₁ LN(x))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.inner = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """One residual step."""
        return x + self.out(F.gelu(self.inner(self.norm(x))))


def build_frame_context(
    frame_context: FrameContext,
    *,
    num_joints: int,
    in_channels: int,
    dim: int,
    context_frames: int,
    context_dim: int,
    context_blocks: int,
) -> nn.Module | None:
    """The context module by its config name; None for "none"."""
    if frame_context == "linear":
        return LinearFrameContext(num_joints=num_joints, in_channels=in_channels, dim=dim)
    if frame_context == "residual_mlp":
        return ResidualMlpFrameContext(
            num_joints=num_joints,
            in_channels=in_channels,
            dim=dim,
            context_frames=context_frames,
            context_dim=context_dim,
            context_blocks=context_blocks,
        )
    assert frame_context == "none", frame_context
    return None
