"""Multi-head self-attention over the joints of a frame or over the frames of a joint.

Shapes: B clips, T frames, J joints, C channels, H heads, D = C / H channels per head.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.linear import Linear

AttentionAxis = Literal["joint", "frame"]
AttentionKernel = Literal["auto", "sdpa", "matmul"]

# Below this length two plain matrix products beat `scaled_dot_product_attention` on the CPU, forward and
# backward; above it SDPA, which never writes the L × L matrix, wins by up to 3× (docs/ssr_stf.md, "Speed").
SDPA_MIN_LENGTH_ON_CPU = 64

# Softmax over rows shorter than a SIMD register or two leaves PyTorch's vectorised path on the CPU; with the
# keys in the last dimension but one, every lane works on another query (0.5× at 9 tokens, 0.97× at 17).
KEYS_FIRST_MAX_LENGTH = 24


class RotaryTable(nn.Module):
    """Rotary position embedding (Su et al. 2021, RoFormer, eq. 34) for any number of frames.

    The angle of frame t and channel pair i is t · base^(-2i / D). Channel i is paired with i + D/2. The
    tables hold no parameter, never enter a checkpoint, and grow when a longer clip arrives.
    """

    def __init__(self, *, head_dim: int, base: float = 10_000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ValueError(
                f"Rotary temporal position needs an even number of channels per head, but dim / num_heads is "
                f"{head_dim}; choose another dim or num_heads, or temporal_position=none."
            )
        self.head_dim = head_dim
        self.base = base
        # No buffers: their length follows the data, and distributed training broadcasts every buffer.
        self.cos = torch.empty(0, head_dim)
        self.sin = torch.empty(0, head_dim)

    def tables(self, num_frames: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and signed sines, both (num_frames, D), on the device and in the dtype of `like`."""
        if len(self.cos) < num_frames or self.cos.device != like.device or self.cos.dtype != like.dtype:
            # A table first built inside `inference_mode` must still serve a later training step.
            with torch.inference_mode(False), torch.no_grad():
                self._build(max(num_frames, len(self.cos)), like)
        return self.cos[:num_frames], self.sin[:num_frames]

    def _build(self, num_frames: int, like: Tensor) -> None:
        half = self.head_dim // 2
        pair = torch.arange(half, dtype=torch.float64, device="cpu")
        frame = torch.arange(num_frames, dtype=torch.float64, device="cpu")
        angle = frame[:, None] * torch.exp(-math.log(self.base) * pair / half)
        # The sign of the rotation's off-diagonal lives in the table, so that applying it is one roll.
        signed_sin = torch.cat((-angle.sin(), angle.sin()), -1)
        self.cos = torch.cat((angle.cos(), angle.cos()), -1).to(like)
        self.sin = signed_sin.to(like)

    def forward(self, x: Float[Tensor, "*batch frame head_dim"]) -> Float[Tensor, "*batch frame head_dim"]:
        """Rotates queries or keys (…, T, D) by the angle of their frame."""
        cos, sin = self.tables(x.shape[-2], x)
        return torch.addcmul(x * cos, x.roll(self.head_dim // 2, -1), sin)


class MultiHeadSelfAttention(nn.Module):
    """Multi-head self-attention over one axis of (B, T, J, C), up to but without the output projection.

    The projection belongs to the residual connection around it (`core.linear.ResidualLinear`), where
    it absorbs the LayerScale. Queries, keys and values have no bias [P: MotionBERT, MotionAGFormer].

    Args:
        dim: channels C.
        num_heads: heads H; C must be a multiple of it.
        axis: "joint" attends within a frame, "frame" along each joint's trajectory.
        rotary: turns queries and keys by their position on the axis; None for none.
        kernel: "sdpa" | "matmul" | "auto": SDPA on accelerators; on the CPU from 64 tokens on, except to train
            in half precision. The results agree to rounding.

    Raises:
        ValueError: C is not a multiple of H.
    """

    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        axis: AttentionAxis,
        rotary: RotaryTable | None,
        kernel: AttentionKernel,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"dim={dim} is not a multiple of num_heads={num_heads}; change one of them.")
        self.num_heads = num_heads
        self.axis = axis
        self.rotary = rotary
        self.kernel = kernel
        self.qkv = Linear(dim, 3 * dim, bias=False)

    def forward(self, x: Float[Tensor, "batch frame joint dim"]) -> Float[Tensor, "batch frame joint dim"]:
        """Attended values, heads concatenated, not yet projected."""
        if self.axis == "frame":
            return self.attend(x.transpose(1, 2)).transpose(1, 2)
        return self.attend(x)

    def attend(self, x: Float[Tensor, "batch group token dim"]) -> Float[Tensor, "batch group token dim"]:
        """Attention among the tokens of each group."""
        batch, group, token, dim = x.shape
        # Four dimensions, because SDPA leaves its fast path for five.
        qkv = self.qkv(x).view(batch * group, token, 3, self.num_heads, dim // self.num_heads)
        qkv = qkv.permute(2, 0, 3, 1, 4)
        if self.rotary is None:
            query, key, value = qkv.unbind(0)
        else:
            query, key, value = qkv.contiguous().unbind(0)  # one copy here saves three during the rotation
            query, key = self.rotary(query), self.rotary(key)
        attention = F.scaled_dot_product_attention if self.uses_sdpa(query) else matmul_attention
        out = attention(query, key, value)
        return out.transpose(1, 2).reshape(batch, group, token, dim)

    def uses_sdpa(self, query: Float[Tensor, "batch head token head_dim"]) -> bool:
        """Whether attention of these queries goes through SDPA."""
        if self.kernel != "auto" or query.device.type != "cpu":
            return self.kernel != "matmul"
        # Forward and backward in bfloat16, SDPA takes 5× the time of matrix products at 81 tokens, 1.2× at 243.
        trains_in_half = torch.is_grad_enabled() and query.dtype.itemsize < 4
        return query.shape[-2] >= SDPA_MIN_LENGTH_ON_CPU and not trains_in_half


def matmul_attention(
    query: Float[Tensor, "*batch token head_dim"],
    key: Float[Tensor, "*batch token head_dim"],
    value: Float[Tensor, "*batch token head_dim"],
) -> Float[Tensor, "*batch token head_dim"]:
    """softmax(Q Kᵀ / √D) V by two matrix products, the faster way for short sequences on the CPU."""
    query = query * query.shape[-1] ** -0.5
    if query.shape[-2] <= KEYS_FIRST_MAX_LENGTH:
        return (key @ query.transpose(-2, -1)).softmax(-2).transpose(-2, -1) @ value
    return (query @ key.transpose(-2, -1)).softmax(-1) @ value
