"""Multiply-adds of the backbone, in both of the conventions that the field mixes."""

import copy
from typing import Any, NamedTuple

import torch
from torch import nn

from core.ssr_stf.attention import MultiHeadSelfAttention
from core.ssr_stf.depthwise import HopOperator
from core.ssr_stf.fusion import AdaptiveFusion
from core.ssr_stf.model import SsrStf


class MultiplyAdds(NamedTuple):
    """Multiply-adds of one clip.

    Attributes:
        modules: linear layers, convolutions, hop operators and fusion: what published tables count.
        with_attention: the same, plus both products of every attention (Q Kᵀ, and its weights times V).
    """

    modules: int
    with_attention: int


def count_multiply_adds(model: SsrStf, num_frames: int, head: nn.Module | None = None) -> MultiplyAdds:
    """Counts the multiply-adds of one forward pass over a clip of `num_frames` frames.

    Every weight counts once per token it is applied to; normalisations, activations, additions and biases
    count nothing. A hop operator counts one per pair of joints within its reach and channel.

    Args:
        model: the backbone; it is neither run nor changed.
        head: a module on its features, counted as well.
    """
    in_modules = 0
    in_attention = 0

    def count(module: nn.Module, inputs: Any, output: Any) -> None:
        nonlocal in_modules, in_attention
        if isinstance(module, nn.Linear):
            in_modules += output.numel() * module.in_features
        elif isinstance(module, nn.Conv2d):  # a depthwise one, too: its weight[0] is one channel's kernel
            in_modules += output.numel() * module.weight[0].numel()
        elif isinstance(module, HopOperator):
            in_modules += output.numel() // output.shape[3] * module.num_pairs_in_reach
        elif isinstance(module, AdaptiveFusion):
            in_modules += output.shape[:-1].numel() * module.logits.weight.numel()
        elif isinstance(module, MultiHeadSelfAttention):
            tokens_attended = output.shape[2 if module.axis == "joint" else 1]
            in_attention += 2 * output.numel() * tokens_attended

    # On the meta device a forward pass computes shapes alone.
    network = nn.Sequential(model, *([] if head is None else [head]))
    network = copy.deepcopy(network).to("meta").eval()
    for module in network.modules():
        module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.empty(1, num_frames, model.num_joints, model.embed.in_features, device="meta"))
    return MultiplyAdds(modules=in_modules, with_attention=in_modules + in_attention)
