"""Fusion of both streams against the softmax that it stands for, its own gradient against finite differences."""

import pytest
import torch
from torch import Tensor

from core.ssr_stf.fusion import AdaptiveFusion


@pytest.mark.parametrize("per_channel", [False, True])
@torch.no_grad()
def test_adaptive_fusion_equals_softmax_of_concatenated_streams(per_channel: bool) -> None:
    torch.manual_seed(0)
    fusion = AdaptiveFusion(dim=6, per_channel=per_channel).double()
    streams = torch.randn(2, 2, 3, 5, 6, dtype=torch.float64)
    torch.testing.assert_close(fusion(*streams), streams.mean(0), atol=1e-14, rtol=0)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    logits = fusion.logits(torch.cat((streams[0], streams[1]), -1))
    alpha = torch.stack(logits.chunk(2, -1)).softmax(0)
    torch.testing.assert_close(fusion(*streams), (alpha * streams).sum(0), atol=1e-13, rtol=0)


@pytest.mark.parametrize("per_channel", [False, True])
def test_gradients_of_adaptive_fusion_are_those_of_finite_differences(per_channel: bool) -> None:
    torch.manual_seed(0)
    fusion = AdaptiveFusion(dim=6, per_channel=per_channel).double()
    streams = torch.randn(2, 2, 3, 5, 6, dtype=torch.float64).requires_grad_().unbind()
    parameters = {name: torch.randn_like(p).requires_grad_() for name, p in fusion.named_parameters()}

    def fuse(first: Tensor, second: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(fusion, dict(zip(parameters, values, strict=True)), (first, second))

    torch.autograd.gradcheck(fuse, (*streams, *parameters.values()))


def test_adaptive_fusion_takes_a_gradient_in_any_order_of_memory() -> None:
    torch.manual_seed(0)
    fusion = AdaptiveFusion(dim=6, per_channel=False)
    torch.nn.init.normal_(fusion.logits.weight)
    streams = torch.randn(2, 2, 3, 5, 6).requires_grad_().unbind()
    inputs, upstream = (*streams, *fusion.parameters()), torch.randn(6, 5, 3, 2)
    fused = fusion(*streams)
    in_order = torch.autograd.grad(
        fused, inputs, upstream.permute(3, 2, 1, 0).contiguous(), retain_graph=True
    )
    for ours, wanted in zip(
        torch.autograd.grad(fused, inputs, upstream.permute(3, 2, 1, 0)), in_order, strict=True
    ):
        torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_adaptive_fusion_keeps_its_precision_under_autocast() -> None:
    fusion = AdaptiveFusion(dim=6, per_channel=False)
    torch.nn.init.normal_(fusion.logits.weight)
    streams = torch.randn(2, 2, 3, 5, 6)
    with torch.autocast("cpu", torch.bfloat16):
        in_half = fusion(*streams)
    torch.testing.assert_close(in_half, fusion(*streams), atol=0, rtol=0)
