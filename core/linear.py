"""Linear maps of tokens, and together with what follows them: a GELU, a residual connection, or both.

On the CPU oneDNN's matrix products can be faster than those that `torch.nn.functional.linear` is given (measured on
one AMD processor: docs/ssr_stf.md, "Speed"); without gradients it computes a map and what follows in one pass.

Shapes: B clips, T frames, J joints, C channels.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Of the map; with fewer, the call costs what it saves (docs/ssr_stf.md, "Speed").
ONEDNN_MIN_MULTIPLY_ADDS = 10_000_000

# The operator that torch.compile turns linear maps on the CPU into. It has no gradient of its own.
_onednn_linear: Any = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
)


def without_autocast(x: Tensor) -> AbstractContextManager[Any]:
    """What follows runs in the precision of its inputs: half a precision's steps are pixels and millimetres."""
    device = x.device.type  # "meta", where models are only counted, has no autocast
    return nullcontext() if device == "meta" else torch.autocast(device, enabled=False)


class Linear(nn.Linear):
    """W x + b."""

    def forward(self, x: Float[Tensor, "*batch dim_in"]) -> Float[Tensor, "*batch dim_out"]:
        """Maps every token."""
        return linear(x, self.weight, self.bias)


class LinearGelu(nn.Linear):
    """GELU(W x + b)."""

    def forward(self, x: Float[Tensor, "*batch dim_in"]) -> Float[Tensor, "*batch dim_out"]:
        """Maps every token."""
        if torch.is_grad_enabled() or not suits_onednn(x, self.weight):
            return F.gelu(linear(x, self.weight, self.bias))
        y: Tensor = _onednn_linear(x, self.weight, self.bias, "gelu", [], "none")
        return y


class ResidualLinear(nn.Linear):
    """x + γ ⊙ (W h + b): output projection, LayerScale (Touvron et al. 2021) and residual connection in one.

    γ is folded into W and b before the product, so that neither pass touches the tokens for it.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        layer_scale_init: float,
        dropout: float,
        drop_path: float,
    ) -> None:
        super().__init__(in_features, out_features)
        self.layer_scale = nn.Parameter(torch.full((out_features,), layer_scale_init))
        self.dropout = dropout
        self.drop_path = drop_path

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "batch frame joint dim"], h: Float[Tensor, "batch frame joint hidden"]
    ) -> Float[Tensor, "batch frame joint dim"]:
        """Adds the projected h to x; in training h is dropped by channel, or by clip (stochastic depth)."""
        weight, bias = self.scaled()
        if not self.drops:
            if (
                _lies_by_channel(h)
                and x.dtype == h.dtype == weight.dtype
                and not torch.is_autocast_enabled("cpu")
            ):
                # MKL takes a factor in either order, oneDNN would transpose it first.
                shifted = x.flatten(0, -2) + bias
                return shifted.addmm_(h.flatten(0, -2), weight.t()).view(x.shape)
            if suits_onednn(h, weight):
                y: Tensor = _OneDnnLinear.apply(h, weight, bias, x)
                return y
        branch = linear(h, weight, bias)
        if self.training and self.dropout:
            branch = F.dropout(branch, self.dropout)
        if self.training and self.drop_path:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype) >= self.drop_path
            branch = branch * kept / (1 - self.drop_path)
        return x + branch

    @property
    def drops(self) -> bool:
        """Whether a pass leaves some of h out."""
        return self.training and bool(self.dropout or self.drop_path)

    def scaled(self) -> tuple[Float[Tensor, "dim hidden"], Float[Tensor, "dim"]]:
        """γ ⊙ W and γ ⊙ b."""
        return self.layer_scale[:, None] * self.weight, self.layer_scale * self.bias


def residual_mlp(
    x: Float[Tensor, "batch frame joint dim"],
    h: Float[Tensor, "batch frame joint dim"],
    *,
    expand: LinearGelu,
    project: ResidualLinear,
) -> Float[Tensor, "batch frame joint dim"]:
    """project(x, expand(h)): x + γ ⊙ (W₂ GELU(W₁ h + b₁) + b₂)."""
    if not torch.is_grad_enabled() or project.drops or not suits_onednn(h, expand.weight):
        return project(x, expand(h))
    y: Tensor = _OneDnnMlp.apply(x, h, expand.weight, expand.bias, *project.scaled())
    return y


def linear(
    x: Float[Tensor, "*batch dim_in"],
    weight: Float[Tensor, "dim_out dim_in"],
    bias: Float[Tensor, "dim_out"] | None,
) -> Float[Tensor, "*batch dim_out"]:
    """`torch.nn.functional.linear`, by oneDNN where that pays."""
    if not suits_onednn(x, weight):
        return F.linear(x, weight, bias)
    y: Tensor = _OneDnnLinear.apply(x, weight, bias, None)
    return y


def suits_onednn(x: Float[Tensor, "*batch dim_in"], weight: Float[Tensor, "dim_out dim_in"]) -> bool:
    """Whether oneDNN's operator is there and computes the map of x, and pays: large, in float32, on the CPU."""
    return (
        _onednn_linear is not None
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() * len(weight) >= ONEDNN_MIN_MULTIPLY_ADDS
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
    )


def _lies_by_channel(h: Float[Tensor, "*batch dim"]) -> bool:
    """Whether in the CPU's memory every channel has its tokens side by side."""
    return h.device.type == "cpu" and h.stride(-1) != 1 and h.movedim(-1, 0).is_contiguous()


class _OneDnnLinear(torch.autograd.Function):
    """oneDNN's linear map, added to something or not, with its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, added_to: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        y: Tensor
        if added_to is None:
            y = _onednn_linear(x, weight, bias, "none", [], "")
        else:
            y = _onednn_linear.binary(x, added_to, weight, bias, "add")
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        *of_the_map, of_added_to = ctx.needs_input_grad
        return *_gradients(grad, x, weight, of_the_map), grad if of_added_to else None


class _OneDnnMlp(torch.autograd.Function):
    """`residual_mlp`. In its backward pass the gradient before GELU takes the place of that after it."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, expand: Tensor, expand_bias: Tensor, project: Tensor, bias: Tensor
    ) -> Tensor:
        before = _onednn_linear(h, expand, expand_bias, "none", [], "")
        hidden = F.gelu(before)
        ctx.save_for_backward(h, expand, before, hidden, project)
        y: Tensor = _onednn_linear.binary(hidden, x, project, bias, "add")
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, expand, before, hidden, project = ctx.saved_tensors
        of_x, *of_expand, of_project, of_bias = ctx.needs_input_grad
        of_hidden, *of_the_second = _gradients(grad, hidden, project, (any(of_expand), of_project, of_bias))
        of_the_first: tuple[Tensor | None, ...] = (None, None, None)
        if of_hidden is not None:
            torch.ops.aten.gelu_backward.grad_input(of_hidden, before, grad_input=of_hidden)
            of_the_first = _gradients(of_hidden, h, expand, of_expand)
        return grad if of_x else None, *of_the_first, *of_the_second


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, wanted: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those of x, weight and bias, as far as they are wanted; that of x by oneDNN.

    The weight's is a product over all tokens, for which oneDNN would first copy both of its factors.
    """
    of_x, of_weight, of_bias = wanted
    by_token = grad.flatten(0, -2)
    return (
        _onednn_linear(grad, weight.t(), None, "none", [], "") if of_x else None,
        by_token.t() @ x.flatten(0, -2) if of_weight else None,
        by_token.sum(dim=0) if of_bias else None,
    )
