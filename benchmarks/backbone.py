"""The SSR-STF backbone: whole models by size, and its fast operators against plain ones of the same result.

Whole models are `configs/backbone/*_published.yaml` at the clip length of their size; "another function" marks an
alternative that computes something else, so that its difference says nothing about correctness.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.progress import track
from torch import Tensor, nn

from benchmarks import CONFIGS
from benchmarks.timing import BenchRow, time_side_by_side
from core.linear import LinearGelu, ResidualLinear
from core.skeleton import H36M_17
from core.ssr_stf.attention import matmul_attention
from core.ssr_stf.depthwise import DepthwiseConvolution, HopOperator, by_channel, channels_last
from core.ssr_stf.fusion import AdaptiveFusion
from core.ssr_stf.skeleton_attention import FAR_MAX_HOP

# Size → frames of a clip, clips of a batch. The batch of B is 1: one step of it takes seconds.
WHOLE_MODELS = {"xs": (27, 8), "s": (81, 2), "b": (243, 1)}
# Overrides of our side, overrides of the other side, and its name.
VARIANTS: list[tuple[dict[str, str], dict[str, str], str]] = [
    ({}, {"attention_kernel": "matmul"}, "matrix products"),
    ({}, {"attention_kernel": "sdpa"}, "SDPA always"),
    ({"joint_op": "hop"}, {"joint_op": "index"}, "index convolution (another function)"),
    ({}, {"ssr_layout": "none"}, "no SSR stream (another function)"),
]
# Operators are timed on clips of this many (clips, frames, joints, channels).
OPERATOR_SHAPE = (32, 27, 17, 64)
LONG_OPERATOR_SHAPE = (4, 243, 17, 64)
SHORT_ATTENTION_SHAPE = (576, 8, 9, 8)  # groups, heads, tokens, channels per head


def run(threads: int) -> list[BenchRow]:
    """Rows for forward, and forward + backward, of every case."""
    rows: list[BenchRow] = []
    for size, (num_frames, num_clips) in track(WHOLE_MODELS.items(), "Whole models", transient=True):
        keypoints = torch.randn(num_clips, num_frames, 17, 3, generator=torch.Generator().manual_seed(0))
        for our_changes, other_changes, name in VARIANTS:
            rows += _rows(
                f"{' '.join([size.upper(), *our_changes.values()])}, T {num_frames}, batch {num_clips}",
                _backbone(size, our_changes),
                _backbone(size, other_changes),
                name,
                (keypoints,),
                threads,
                min_rounds=3,
            )
    for case, ours, other, name, inputs in track(_operators(), "Operators", transient=True):
        rows += _rows(case, ours, other, name, inputs, threads, min_rounds=11)
    return rows


def _backbone(size: str, changes: dict[str, str]) -> nn.Module:
    overrides = [f"+backbone=ssr_stf_{size}_published"]
    overrides += [f"backbone.{key}={value}" for key, value in changes.items()]
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(overrides=overrides).backbone
    torch.manual_seed(0)
    model: nn.Module = instantiate(config)
    return model


def _rows(
    case: str,
    ours: Callable[..., Tensor],
    other: Callable[..., Tensor],
    name: str,
    inputs: tuple[Tensor, ...],
    threads: int,
    *,
    min_rounds: int,
) -> list[BenchRow]:
    def forward(function: Callable[..., Tensor]) -> None:
        with torch.no_grad():
            function(*inputs)

    def forward_and_backward(function: Callable[..., Tensor]) -> None:
        function(*(tensor.detach().requires_grad_() for tensor in inputs)).square().mean().backward()

    with torch.no_grad():
        difference = (ours(*inputs) - other(*inputs)).abs().max().item()
    rows = []
    for what, call in (("forward", forward), ("forward + backward", forward_and_backward)):
        ours_s, other_s = time_side_by_side(
            lambda call=call: call(ours), lambda call=call: call(other), seconds=2, min_rounds=min_rounds
        )
        rows.append(
            BenchRow(
                case=f"{case}, {what}",
                ours_s=ours_s,
                reference=name,
                reference_s=other_s,
                max_abs_diff=difference,
                sizes={f"dim_{index}": length for index, length in enumerate(inputs[0].shape)},
                dtype=str(inputs[0].dtype).removeprefix("torch."),
                threads=threads,
            )
        )
    return rows


def _operators() -> list[tuple[str, Callable[..., Tensor], Callable[..., Tensor], str, tuple[Tensor, ...]]]:
    torch.manual_seed(0)
    dim = OPERATOR_SHAPE[-1]
    x, y = torch.randn(2, *OPERATOR_SHAPE)
    query, key, value = torch.randn(3, *SHORT_ATTENTION_SHAPE)
    fusion = AdaptiveFusion(dim=dim, per_channel=False)
    residual = ResidualLinear(dim, dim, layer_scale_init=0.1, dropout=0.0, drop_path=0.0)
    hop = HopOperator(dim=dim, hop_distances=H36M_17.hop_distances(), max_hop=FAR_MAX_HOP)
    expand = LinearGelu(dim, 4 * dim)
    conv = DepthwiseConvolution(dim=dim, axis="frame", size=5, dilation=2, padding="zeros")
    channels, long_channels = (by_channel(z).contiguous() for z in (x, torch.randn(LONG_OPERATOR_SHAPE)))
    native = _convolved_channels_last(conv)
    pairs: list[tuple[str, Any, Any, str, tuple[Tensor, ...]]] = [
        ("adaptive fusion", fusion, _fusion_by_softmax(fusion), "softmax of the concatenation", (x, y)),
        ("LayerScale and residual", residual, _residual_unfolded(residual), "scaling the tokens", (x, y)),
        ("linear map and GELU", expand, _gelu_after(expand), "one after the other", (x,)),
        ("far hops", hop, _hop_by_hop(hop), "hop by hop", (channels,)),
        ("dilated convolution, 27 frames", conv, native, "Conv2d, channels last", (channels,)),
        ("dilated convolution, 243 frames", conv, native, "Conv2d, channels last", (long_channels,)),
        ("attention, 9 tokens", matmul_attention, _queries_first, "softmax over rows", (query, key, value)),
        (
            "attention, 9 tokens",
            matmul_attention,
            F.scaled_dot_product_attention,
            "SDPA",
            (query, key, value),
        ),
    ]
    return pairs


def _fusion_by_softmax(fusion: AdaptiveFusion) -> Callable[[Tensor, Tensor], Tensor]:
    def fuse(global_features: Tensor, local_features: Tensor) -> Tensor:
        alpha = fusion.logits(torch.cat((global_features, local_features), -1)).softmax(-1)
        return alpha[..., :1] * global_features + alpha[..., 1:] * local_features

    return fuse


def _residual_unfolded(residual: ResidualLinear) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, h: x + residual.layer_scale * F.linear(h, residual.weight, residual.bias)


def _gelu_after(linear: nn.Linear) -> Callable[[Tensor], Tensor]:
    return lambda x: F.gelu(F.linear(x, linear.weight, linear.bias))


def _hop_by_hop(hop: HopOperator) -> Callable[[Tensor], Tensor]:
    means = hop.at_hop / hop.at_hop.sum(-1, keepdim=True).clamp(min=1)

    def along(weight: Tensor, mean: Tensor, x: Tensor) -> Tensor:
        return weight[:, None, None, None] * (x @ mean.T)

    bias = hop.bias[:, None, None, None]
    return lambda x: sum((along(w, mean, x) for w, mean in zip(hop.weight, means, strict=True)), bias)


def _convolved_channels_last(conv: DepthwiseConvolution) -> Callable[[Tensor], Tensor]:
    """By PyTorch's own convolution in the memory format that suits it, with the copies into it and out of it."""
    reach = conv.offsets[-1]
    dilation = conv.offsets[1] - conv.offsets[0]

    def convolve(x: Tensor) -> Tensor:
        images = channels_last(x).permute(0, 3, 1, 2)
        y = F.conv2d(images, conv.weight, conv.bias, 1, (reach, 0), dilation, conv.groups)
        return by_channel(y.permute(0, 2, 3, 1)).contiguous()

    return convolve


def _queries_first(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1) @ value
