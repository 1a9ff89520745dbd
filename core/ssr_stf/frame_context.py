"""Frame context: lets every joint token see its whole frame, and those around it, before the first block.

Tokens that begin with their own three numbers spend hundreds of steps learning whose neighbour is whose; a
fully connected encoder of the frame, as the spatial encoder of P-STMO (Shan et al., ECCV 2022), hands them
that view at once. Its use beside a token transformer is our own.

Shapes: B clips, T frames, J joints, C channels, K numbers per joint, F channels of a frame's context.
"""

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.keypoints.windows import blend_weights, split_windows
from core.linear import Linear

FrameContext = Literal["none", "linear", "residual_mlp", "mirror_mlp"]


class LinearFrameContext(nn.Module):
    """A frame's own J · K numbers; each joint token gets its own linear map of them."""

    def __init__(self, *, num_joints: int, in_channels: int, dim: int) -> None:
        super().__init__()
        self.to_tokens = Linear(num_joints * in_channels, num_joints * dim)

    def forward(
        self, keypoints: Float[Tensor, "batch frame joint channel"]
    ) -> Float[Tensor, "batch frame F"]:
        """The context of every frame."""
        return keypoints.flatten(2)


class WindowedFrameContext(nn.Module):
    """An MLP on overlapping windows of `context_frames` frames, their views blended into one per frame.

    A window describes all of its frames at once, as a plain residual MLP on a flattened clip does; on a clip of
    just `context_frames` frames it is that MLP. Longer clips are covered by windows that share `context_overlap`
    frames or more, and what they say of a frame is blended by Hann weights: side by side, windows would leave
    seams that the trunk would have to mend; one window per frame would cost `context_frames` times as much.
    A shorter clip's end is repeated.

    The context enters the joint tokens before the trunk, whose residual stream carries it to the pose features:
    with no block active it is a complete model, and the trunk has only to refine what the MLP sees. With a
    shortcut it also enters the pose features directly.

    Args:
        encoder: windows (B, N, W, J · K) to (B, N, W, F).
        dim: channels of the tokens.
        dim_shortcut: channels of the pose features, for a shortcut to them; None: there is none.

    Raises:
        ValueError: not 0 ≤ `context_overlap` < `context_frames`.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        num_joints: int,
        dim: int,
        dim_shortcut: int | None,
        context_frames: int,
        context_overlap: int,
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
        self.encoder = encoder
        # Keeps the context at unit size however long its encoder has trained: beside one that had grown to seven
        # times that size, a trunk that joined later learned nothing.
        self.norm = nn.LayerNorm(context_channels)
        self.to_tokens = Linear(context_channels, num_joints * dim)
        self.to_representation = (
            None if dim_shortcut is None else Linear(context_channels, num_joints * dim_shortcut)
        )
        for linear in (self.to_tokens, self.to_representation):
            if linear is not None:
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
        described = self.encoder(torch.stack([frames[:, window] for window in windows], 1))
        if len(windows) == 1:
            return self.norm(described[:, 0, :num_frames])
        blending = _blending(
            num_frames, self.context_frames, self.context_overlap, described.dtype, described.device
        )
        return self.norm(blending @ described.flatten(1, 2))


@lru_cache(maxsize=16)
def _blending(
    num_frames: int, window: int, overlap: int, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "frame window_and_frame"]:
    """`blend_windows` as a matrix. A GPU would wait for weights that are made in each pass."""
    windows = split_windows(num_frames, window, overlap)
    # What is made while nothing is to be learned could not be used for learning later.
    with torch.inference_mode(False):
        blending = torch.zeros(num_frames, len(windows), window, dtype=torch.float64)
        for index, (where, weights) in enumerate(
            zip(windows, blend_weights(windows, num_frames), strict=True)
        ):
            blending[where, index] = torch.diag(weights)
        return blending.flatten(1).to(device, dtype)


class ResidualMlpEncoder(nn.Module):
    """The plain residual MLP on a flattened window of W frames."""

    def __init__(
        self, *, in_channels: int, num_joints: int, num_frames: int, dim: int, num_blocks: int, dim_out: int
    ) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.window = Linear(num_frames * num_joints * in_channels, dim)
        self.blocks = nn.Sequential(*(ResidualMlpBlock(dim) for _ in range(num_blocks)))
        self.norm = nn.LayerNorm(dim)
        self.to_frames = Linear(dim, num_frames * dim_out)
        # A chain of PyTorch's default initialisations shrinks the signal by √3 a layer, and Adam then needs
        # hundreds of steps to restore it.
        nn.init.orthogonal_(self.to_frames.weight)

    def forward(
        self, windows: Float[Tensor, "batch window window_frame number"]
    ) -> Float[Tensor, "batch window window_frame dim_out"]:
        """What each window by itself says of its frames."""
        hidden = self.norm(self.blocks(self.window(windows.flatten(2))))
        return self.to_frames(hidden).unflatten(2, (self.num_frames, -1))


class ResidualMlpBlock(nn.Module):
    """x + W₂ GELU(W₁ LN(x)), the identity at first."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.inner = Linear(dim, dim)
        self.out = Linear(dim, dim)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """One residual step."""
        return x + self.out(F.gelu(self.inner(self.norm(x))))
