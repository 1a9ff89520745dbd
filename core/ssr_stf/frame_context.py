"""Frame context: lets every joint token see its whole frame, and those around it, before the first block.

Tokens that begin with their own three numbers spend hundreds of steps learning whose neighbour is whose; a
fully connected encoder of the frame, as the spatial encoder of P-STMO (Shan et al., ECCV 2022), hands them
that view at once. Its use beside a token transformer is our own.

Shapes: B clips, T frames, J joints, C channels, K numbers per joint, F channels of a frame's context.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.keypoints.windows import blend_weights, split_windows

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
    """A residual MLP on overlapping windows of `context_frames` frames, their views blended into one per frame.

    A window describes all of its frames at once, as the plain residual MLP on a flattened clip does; on a clip of
    just `context_frames` frames it is that MLP. Longer clips are covered by windows that share `context_overlap`
    frames or more, and what they say of a frame is blended by Hann weights: side by side, windows would leave
    seams that the trunk would have to mend; one window per frame would cost `context_frames` times as much.
    A shorter clip's end is repeated.

    The context enters twice: into the joint tokens before the trunk, and as a shortcut into the pose features
    after it, so that the trunk has only to refine what the MLP sees. The shortcut alone is a complete model.

    Raises:
        ValueError: not 0 ≤ `context_overlap` < `context_frames`.
    """

    def __init__(
        self,
        *,
        num_joints: int,
        in_channels: int,
        dim: int,
        dim_representation: int,
        context_frames: int,
        context_overlap: int,
        context_dim: int,
        context_blocks: int,
        context_channels: int,
    ) -> None:
        super().__init__()
        if not 0 <= context_overlap < context_frames:
            raise ValueError(
                f"context_overlap={context_overlap} does not fit context_frames={context_frames}: windows share "
                "fewer frames than they have."
            )
        self.context_frames = context_frames
        self.context_overlap = context_overlap
        self.window = nn.Linear(context_frames * num_joints * in_channels, context_dim)
        self.blocks = nn.Sequential(*(ResidualMlpBlock(context_dim) for _ in range(context_blocks)))
        self.norm = nn.LayerNorm(context_dim)
        self.to_frames = nn.Linear(context_dim, context_frames * context_channels)
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
        frames = keypoints.flatten(2)
        missing = self.context_frames - num_frames
        if missing > 0:
            frames = torch.cat((frames, frames[:, -1:].expand(-1, missing, -1)), 1)
        windows = split_windows(frames.shape[1], self.context_frames, self.context_overlap)
        if len(windows) == 1:
            return self.of_windows(frames[:, None])[:, 0, :num_frames]
        described = self.of_windows(torch.stack([frames[:, window] for window in windows], 1))
        context = described.new_zeros(*frames.shape[:2], described.shape[-1])
        for index, (window, weight) in enumerate(
            zip(windows, blend_weights(windows, num_frames), strict=True)
        ):
            context[:, window] += weight[:, None].to(described) * described[:, index]
        return context

    def of_windows(
        self, windows: Float[Tensor, "batch window window_frame number"]
    ) -> Float[Tensor, "batch window window_frame F"]:
        """What each window by itself says of its frames."""
        hidden = self.norm(self.blocks(self.window(windows.flatten(2))))
        return self.to_frames(hidden).unflatten(2, (self.context_frames, -1))


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
