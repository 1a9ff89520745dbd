"""Multi-head self-attention over the joints of a frame or over the frames of a joint.

Shapes: B clips, T frames, J joints, C channels, H heads, D = C / H channels per head.
"""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

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
        return rotate(x, *self.tables(x.shape[-2], x))


def rotate(
    x: Float[Tensor, "*batch frame head_dim"],
    cos: Float[Tensor, "frame head_dim"],
    signed_sin: Float[Tensor, "frame head_dim"],
    *,
    back: bool = False,
) -> Float[Tensor, "*batch frame head_dim"]:
    """Queries or keys turned by `RotaryTable.tables`, or back by as much, which is the gradient."""
    return (x * cos).addcmul_(x.roll(x.shape[-1] // 2, -1), signed_sin, value=-1 if back else 1)


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
        tables = () if self.rotary is None else self.rotary.tables(token, qkv)
        query, key, value = _QueriesKeysValues.apply(qkv, *tables)
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


class _QueriesKeysValues(torch.autograd.Function):
    """(G, L, 3, H, D) as three of (G, H, L, D), the first two rotated where there are tables for it.

    The gradients are laid side by side where they belong, without being stacked first.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, *tables: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(*tables)
        by_head = qkv.permute(2, 0, 3, 1, 4)
        # One copy here saves three during the rotation.
        query, key, value = (by_head.contiguous() if tables else by_head).unbind(0)
        return (rotate(query, *tables), rotate(key, *tables), value) if tables else (query, key, value)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        tables = ctx.saved_tensors
        group, head, token, head_dim = grads[0].shape
        of_qkv = grads[0].new_empty(group, token, 3, head, head_dim)
        for index, grad in enumerate(grads):
            here = of_qkv[:, :, index].transpose(1, 2)
            here.copy_(rotate(grad, *tables, back=True) if tables and index < 2 else grad)
        return of_qkv, *(None for _ in tables)


def matmul_attention(
    query: Float[Tensor, "*batch token head_dim"],
    key: Float[Tensor, "*batch token head_dim"],
    value: Float[Tensor, "*batch token head_dim"],
) -> Float[Tensor, "*batch token head_dim"]:
    """softmax(Q Kᵀ / √D) V by two matrix products, the faster way for short sequences on the CPU."""
    if query.device.type == "cpu" and query.dtype.itemsize >= 4:
        y: Tensor = _MatmulAttention.apply(query, key, value)
        return y
    query = query * query.shape[-1] ** -0.5
    if query.shape[-2] <= KEYS_FIRST_MAX_LENGTH:
        return (key @ query.transpose(-2, -1)).softmax(-2).transpose(-2, -1) @ value
    return (query @ key.transpose(-2, -1)).softmax(-1) @ value


class _MatmulAttention(torch.autograd.Function):
    """`matmul_attention` with the scale inside the products, and a gradient without copies between them."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch = query.shape[:-2]
        query, key, value = (x.contiguous().flatten(0, -3) for x in (query, key, value))
        ctx.keys_first = query.shape[1] <= KEYS_FIRST_MAX_LENGTH
        rows, columns = (key, query) if ctx.keys_first else (query, key)
        weights = _scaled_product(rows, columns.transpose(1, 2), query.shape[2])
        weights = weights.softmax(1 if ctx.keys_first else 2)
        ctx.save_for_backward(query, key, value, weights)
        by_query = weights.transpose(1, 2) if ctx.keys_first else weights
        return torch.bmm(by_query, value).unflatten(0, batch)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, weights = ctx.saved_tensors
        batch, head_dim = grad.shape[:-2], grad.shape[-1]
        grad = grad.contiguous().flatten(0, -3)
        rows, columns = (value, grad) if ctx.keys_first else (grad, value)
        of_weights = torch.bmm(rows, columns.transpose(1, 2))
        along = 1 if ctx.keys_first else 2
        of_scores = torch._softmax_backward_data(of_weights, weights, along, weights.dtype)
        by_key, scores_by_query = weights, of_scores.transpose(1, 2)
        if not ctx.keys_first:
            by_key, scores_by_query = weights.transpose(1, 2), of_scores
        of_query = _scaled_product(scores_by_query, key, head_dim)
        of_key = _scaled_product(scores_by_query.transpose(1, 2), query, head_dim)
        of_value = torch.bmm(by_key, grad)
        return of_query.unflatten(0, batch), of_key.unflatten(0, batch), of_value.unflatten(0, batch)


def _scaled_product(
    a: Float[Tensor, "batch row inner"], b: Float[Tensor, "batch inner column"], head_dim: int
) -> Float[Tensor, "batch row column"]:
    """A B / √D."""
    product = a.new_empty(a.shape[0], a.shape[1], b.shape[2])
    return torch.baddbmm(product, a, b, beta=0, alpha=head_dim**-0.5)
