"""Frame context: lets every joint token see its whole frame, and those around it, before the first block.

Tokens that begin with their own three numbers spend hundreds of steps learning whose neighbour is whose; a
fully connected encoder of the frame, as the spatial encoder of P-STMO (Shan et al., ECCV 2022), hands them
that view at once. Its use beside a token transformer is our own.

Shapes: B clips, T frames, J joints, C channels, K numbers per joint, F channels of a frame's context.
"""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.ssr_stf.skeleton_attention import replicate_ends

FrameContext = Literal["none", "linear", "residual_mlp"]


class LinearFrameContext(nn.Module):
    """A frame's own J · K numbers; each joint token gets its own linear map of them."""

    def __init__(self, *, num_joints: int, in_channels: int, dim: int) -> None:
        super().__init__()
        self.to_tokens = nn.Linear(num_joints * in_channels, num_joints * dim)

    def forward(
        self, keypoints: Float[Tensor, "batch frame joint channel"]
    ) -> Float[Tensor, "batch frame F"]:
        """The context of every frame."""
        return keypoints.flatten(2)


class ResidualMlpFrameContext(nn.Module):
    """A residual MLP on windows of `context_frames` frames, one every `context_stride` frames.

    Each window describes its middle `context_stride` frames; the clip's ends are repeated beyond it, so any T
    works. With stride 1 this is a temporal convolution; with a stride of the window's length it is the plain
    residual MLP on a flattened clip, applied to consecutive pieces, at a fraction of the cost.

    The context enters twice: into the joint tokens before the trunk, and as a shortcut into the pose features
    after it, so that the trunk has only to refine what the MLP sees. The shortcut alone is a complete model.

    Raises:
        ValueError: `context_frames` and `context_stride` are not both odd, or the stride is the larger.
    """

    def __init__(
        self,
        *,
        num_joints: int,
        in_channels: int,
        dim: int,
        dim_representation: int,
        context_frames: int,
        context_stride: int,
        context_dim: int,
        context_blocks: int,
        context_channels: int,
    ) -> None:
        super().__init__()
        if context_frames % 2 == 0 or context_stride % 2 == 0 or context_stride > context_frames:
            raise ValueError(
                f"context_frames={context_frames} and context_stride={context_stride} must be odd, "
                "so that windows centre on the frames they describe, and the stride not the larger one."
            )
        self.context_frames = context_frames
        self.context_stride = context_stride
        self.window = nn.Linear(context_frames * num_joints * in_channels, context_dim)
        self.blocks = nn.Sequential(*(ResidualMlpBlock(context_dim) for _ in range(context_blocks)))
        self.norm = nn.LayerNorm(context_dim)
        self.to_frames = nn.Linear(context_dim, context_stride * context_channels)
        self.to_tokens = nn.Linear(context_channels, num_joints * dim)
        self.to_representation = nn.Linear(context_channels, num_joints * dim_representation)
        # A chain of PyTorch's default initialisations shrinks the signal by √3 a layer, and Adam then needs
        # hundreds of steps to restore it; these keep its size.
        nn.init.orthogonal_(self.to_frames.weight)
        for linear in (self.to_tokens, self.to_representation):
            nn.init.normal_(linear.weight, std=context_channels**-0.5)

    def forward(
        self, keypoints: Float[Tensor, "batch frame joint channel"]
    ) -> Float[Tensor, "batch frame F"]:
        """The context of every frame."""
        num_frames = keypoints.shape[1]
        margin = (self.context_frames - self.context_stride) // 2
        num_windows = -(-num_frames // self.context_stride)
        padded = replicate_ends(keypoints.flatten(2), 1, margin + self.context_stride - 1)
        padded = padded[:, self.context_stride - 1 :]  # only the end is filled up to whole windows
        windows = padded.unfold(1, self.context_frames, self.context_stride)[:, :num_windows]
        x = self.norm(self.blocks(self.window(windows.flatten(2))))
        return self.to_frames(x).unflatten(2, (self.context_stride, -1)).flatten(1, 2)[:, :num_frames]


class ResidualMlpBlock(nn.Module):
    """x + W₂ GELU(W₁ LN(x)), the identity at first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.inner = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """One residual step."""
        return x + self.out(F.gelu(self.inner(self.norm(x))))
