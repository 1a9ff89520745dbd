"""Linear maps of tokens together with what follows them: a GELU, a residual connection.

For inference on the CPU oneDNN computes each pair in one pass over the tokens, with matrix products of its own.

Shapes: B clips, T frames, J joints, C channels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# Numbers that come in; with fewer, the call costs what the pass saves (docs/ssr_stf.md, "Speed").
ONEDNN_MIN_NUMBERS = 200_000

# The operator that torch.compile turns linear maps on the CPU into. It has no gradient.
_onednn_linear = (
    getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None
)


class Linear(nn.Linear):
    """W x + b."""

    def forward(self, x: Float[Tensor, "*batch dim_in"]) -> Float[Tensor, "*batch dim_out"]:
        """Maps every token."""
        if _onednn_linear is None or not suits_onednn(x):
            return F.linear(x, self.weight, self.bias)
        y: Tensor = _onednn_linear(x, self.weight, self.bias, "none", [], "")
        return y


class LinearGelu(nn.Linear):
    """GELU(W x + b)."""

    def forward(self, x: Float[Tensor, "*batch dim_in"]) -> Float[Tensor, "*batch dim_out"]:
        """Maps every token."""
        if _onednn_linear is None or not suits_onednn(x):
            return F.gelu(F.linear(x, self.weight, self.bias))
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
        weight, bias = self.layer_scale[:, None] * self.weight, self.layer_scale * self.bias
        drops = self.training and (self.dropout or self.drop_path)
        if _onednn_linear is not None and not drops and suits_onednn(h):
            y: Tensor = _onednn_linear.binary(h, x, weight, bias, "add")
            return y
        branch = F.linear(h, weight, bias)
        if self.training and self.dropout:
            branch = F.dropout(branch, self.dropout)
        if self.training and self.drop_path:
            kept = torch.rand(len(x), 1, 1, 1, device=x.device, dtype=x.dtype) >= self.drop_path
            branch = branch * kept / (1 - self.drop_path)
        return x + branch


def suits_onednn(x: Float[Tensor, "*batch dim_in"]) -> bool:
    """Whether oneDNN's operator computes the linear map of x, and pays: many numbers, no gradients, float32."""
    return (
        not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() >= ONEDNN_MIN_NUMBERS
        and bool(torch.backends.mkldnn.enabled)
        and not torch.is_autocast_enabled("cpu")
    )
