"""Fusion of the global and the local stream.

Shapes: B clips, T frames, J joints, C channels.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from core.linear import Linear, without_autocast

Fusion = Literal["adaptive", "per_channel", "mean", "concat"]


class AdaptiveFusion(nn.Module):
    """α G + (1 - α) L, with α the first of softmax(W [G; L] + b); α = 0.5 at initialisation.

    One α per token (MotionAGFormer, eq. 5) or per channel. The softmax over two is computed as the sigmoid of
    their difference, from the difference of the weights, without concatenating G and L.
    """

    def __init__(self, *, dim: int, per_channel: bool) -> None:
        super().__init__()
        weights_per_stream = dim if per_channel else 1
        self.logits = nn.Linear(2 * dim, 2 * weights_per_stream)
        nn.init.zeros_(self.logits.weight)
        nn.init.constant_(self.logits.bias, 0.5)

    def forward(
        self,
        global_features: Float[Tensor, "batch frame joint dim"],
        local_features: Float[Tensor, "batch frame joint dim"],
    ) -> Float[Tensor, "batch frame joint dim"]:
        """Fuses both streams."""
        for_global, for_local = self.logits.weight.chunk(2)
        bias_for_global, bias_for_local = self.logits.bias.chunk(2)
        with without_autocast(local_features):
            fused: Tensor = _AdaptivelyFused.apply(
                global_features,
                local_features,
                *(for_global - for_local).chunk(2, dim=1),
                bias_for_global - bias_for_local,
            )
        return fused


class _AdaptivelyFused(torch.autograd.Function):
    """Fuses by the weights that the logit of α has for either stream, and by its bias.

    A gradient of its own, because autograd would make a tensor for each summand of the streams'.
    """

    @staticmethod
    def forward(
        ctx: Any, first: Tensor, second: Tensor, by_first: Tensor, by_second: Tensor, bias: Tensor
    ) -> Tensor:
        alpha = (F.linear(first, by_first, bias) + F.linear(second, by_second)).sigmoid()
        ctx.save_for_backward(first, second, by_first, by_second, alpha)
        return torch.lerp(second, first, alpha)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        first, second, by_first, by_second, alpha = ctx.saved_tensors
        grad = grad.contiguous()  # what is flattened below is added to, and has to be a view
        of_alpha = (first - second).mul_(grad).sum_to_size(alpha.shape)
        of_logit = (of_alpha * alpha * (1 - alpha)).flatten(0, -2)
        of_first = grad * alpha
        of_second = grad - of_first
        of_first.flatten(0, -2).addmm_(of_logit, by_first)
        of_second.flatten(0, -2).addmm_(of_logit, by_second)
        of_weights = (of_logit.t() @ stream.flatten(0, -2) for stream in (first, second))
        return of_first, of_second, *of_weights, of_logit.sum(0)


class MeanFusion(nn.Module):
    """(G + L) / 2."""

    def forward(
        self,
        global_features: Float[Tensor, "batch frame joint dim"],
        local_features: Float[Tensor, "batch frame joint dim"],
    ) -> Float[Tensor, "batch frame joint dim"]:
        """Fuses both streams."""
        return (global_features + local_features) / 2


class ConcatFusion(nn.Module):
    """W [G; L] + b."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.out = Linear(2 * dim, dim)

    def forward(
        self,
        global_features: Float[Tensor, "batch frame joint dim"],
        local_features: Float[Tensor, "batch frame joint dim"],
    ) -> Float[Tensor, "batch frame joint dim"]:
        """Fuses both streams."""
        return self.out(torch.cat((global_features, local_features), -1))


def build_fusion(fusion: Fusion, *, dim: int) -> nn.Module:
    """The module that fuses both streams, by its config name."""
    if fusion in ("adaptive", "per_channel"):
        return AdaptiveFusion(dim=dim, per_channel=fusion == "per_channel")
    if fusion == "mean":
        return MeanFusion()
    assert fusion == "concat", fusion
    return ConcatFusion(dim=dim)
