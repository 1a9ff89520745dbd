"""Skeleton selective refine attention (SSRA): local dependencies by a decomposed large kernel.

The source names the module and its purpose; what it computes here is the reading that docs/ssr_stf.md lays
out with its confidence: near and far depthwise operators (LSKA, Lau et al. 2023), a selection between them
(LSKNet, Li et al. 2023), and a multiplicative gate.

Shapes: B clips, T frames, J joints, C channels. Within SSRA features are by channel, (C, T, B, J), see
`core.ssr_stf.depthwise`.
"""

from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from core.ssr_stf.depthwise import (
    ChannelLinear,
    DepthwiseConvolution,
    HopOperator,
    Padding,
    by_channel,
    channels_last,
)

SsraAxes = Literal["joint_and_frame", "joint", "frame"]
JointOperator = Literal["index", "hop"]
Selection = Literal["lsk", "hlk", "lska", "token_softmax", "none"]
Gate = Literal["mul", "none"]

NEAR_MAX_HOP = 1
FAR_MAX_HOP = 4
SELECTION_KERNEL = 7


class KernelDecomposition(NamedTuple):
    """A large 1-D kernel as a near convolution followed by a dilated far one."""

    near: int
    far: int
    dilation: int


# LSKA, table 1: nominal kernel size → its decomposition.
LARGE_KERNELS = {
    7: KernelDecomposition(near=3, far=3, dilation=2),
    11: KernelDecomposition(near=3, far=5, dilation=2),
    23: KernelDecomposition(near=5, far=7, dilation=3),
    35: KernelDecomposition(near=5, far=11, dilation=3),
}


def decompose_large_kernel(nominal_size: int, config_key: str) -> KernelDecomposition:
    """Looks a nominal kernel size up in LSKA's table; ValueError names the config key of an unknown one."""
    if nominal_size not in LARGE_KERNELS:
        raise ValueError(
            f"{config_key}={nominal_size} is not a nominal size of the large-kernel decomposition; "
            f"choose one of {', '.join(map(str, LARGE_KERNELS))}."
        )
    return LARGE_KERNELS[nominal_size]


class LskSelection(nn.Module):
    """LSKNet's spatial selection: two sigmoid maps, from channel mean and maximum, weigh near against far.

    LSKNet (Li et al., ICCV 2023, eq. 3-8). The maps are convolved over the axes that SSRA works on.
    """

    def __init__(self, *, dim: int, axes: SsraAxes) -> None:
        super().__init__()
        half = dim // 2
        self.near = ChannelLinear(dim, half)
        self.far = ChannelLinear(dim, half)
        over_frames = SELECTION_KERNEL if axes != "joint" else 1
        over_joints = SELECTION_KERNEL if axes != "frame" else 1
        self.conv = nn.Conv2d(2, 2, (over_frames, over_joints), padding=(over_frames // 2, over_joints // 2))
        self.out = ChannelLinear(half, dim)

    def forward(
        self, near: Float[Tensor, "dim frame batch joint"], far: Float[Tensor, "dim frame batch joint"]
    ) -> Float[Tensor, "dim frame batch joint"]:
        """Selected features, as many channels as came in."""
        near, far = self.near(near), self.far(far)
        maps = mean_and_maximum(near, far).permute(2, 0, 1, 3)
        weights = self.conv(maps).sigmoid().permute(1, 2, 0, 3)
        return self.out(torch.addcmul(near * weights[0], far, weights[1]))


def mean_and_maximum(
    near: Float[Tensor, "dim frame batch joint"], far: Float[Tensor, "dim frame batch joint"]
) -> Float[Tensor, "2 frame batch joint"]:
    """Over the channels of both."""
    if near.dtype.itemsize >= 4:
        maps: Tensor = _MeanAndMaximum.apply(near, far)
        return maps
    # In half precision several channels often reach the maximum; autograd divides its gradient among them.
    return torch.stack(((near.mean(0) + far.mean(0)) / 2, torch.maximum(near.amax(0), far.amax(0))))


class _MeanAndMaximum(torch.autograd.Function):
    """`mean_and_maximum` with a gradient in one pass; every channel that reaches the maximum gets all of its."""

    @staticmethod
    def forward(ctx: Any, near: Tensor, far: Tensor) -> Tensor:
        maximum = torch.maximum(near.amax(0), far.amax(0))
        ctx.save_for_backward(near, far, maximum)
        return torch.stack(((near.sum(0) + far.sum(0)) / (2 * len(near)), maximum))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        near, far, maximum = ctx.saved_tensors
        of_each = grad[0] / (2 * len(near))
        of_largest = of_each + grad[1]
        of_near = torch.where(near == maximum, of_largest, of_each)
        return of_near, torch.where(far == maximum, of_largest, of_each)


class HlkSelection(nn.Module):
    """LCRNet's HLKConv: one linear map of near and far side by side, no selection map."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.out = ChannelLinear(2 * dim, dim)

    def forward(
        self, near: Float[Tensor, "dim frame batch joint"], far: Float[Tensor, "dim frame batch joint"]
    ) -> Float[Tensor, "dim frame batch joint"]:
        """W [near; far] + b."""
        return self.out(torch.cat((near, far)))


class LskaSelection(nn.Module):
    """LSKA as published: the far features alone."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.out = ChannelLinear(dim, dim)

    def forward(
        self, near: Float[Tensor, "dim frame batch joint"], far: Float[Tensor, "dim frame batch joint"]
    ) -> Float[Tensor, "dim frame batch joint"]:
        """W far + b."""
        return self.out(far)


class TokenSoftmaxSelection(nn.Module):
    """Every token weighs its own near against its own far features; equal weights at initialisation."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.near = ChannelLinear(dim, half)
        self.far = ChannelLinear(dim, half)
        self.weigh = ChannelLinear(2 * half, 2)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)
        self.out = ChannelLinear(half, dim)

    def forward(
        self, near: Float[Tensor, "dim frame batch joint"], far: Float[Tensor, "dim frame batch joint"]
    ) -> Float[Tensor, "dim frame batch joint"]:
        """Softmax-weighted sum of both, mapped back to C channels."""
        near, far = self.near(near), self.far(far)
        weights = self.weigh(torch.cat((near, far))).softmax(0)
        return self.out(torch.addcmul(near * weights[0], far, weights[1]))


class NoSelection(nn.Module):
    """The sum of near and far features: `LskSelection` with both maps fixed at one."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.near = ChannelLinear(dim, half)
        self.far = ChannelLinear(dim, half)
        self.out = ChannelLinear(half, dim)

    def forward(
        self, near: Float[Tensor, "dim frame batch joint"], far: Float[Tensor, "dim frame batch joint"]
    ) -> Float[Tensor, "dim frame batch joint"]:
        """Near and far summed at half the channels, mapped back to C channels."""
        return self.out(self.near(near) + self.far(far))


class SkeletonSelectiveRefineAttention(nn.Module):
    """SSRA over the (frame, joint) plane or one of its axes, up to but without the output projection.

    Proposal p = GELU(W_in u); near = depthwise(p); far = dilated depthwise(near); z = select(near, far);
    refinement p ⊙ z. The output projection belongs to the residual connection around it
    (`core.linear.ResidualLinear`).

    Args:
        dim: channels C, even.
        axes: "joint_and_frame", or one of both.
        hop_distances: (J, J) numbers of bones between two joints; used by joint_op "hop".
        joint_op: "index" convolves over joint indices, "hop" works on bones (near hops 0-1, far 0-4).
        temporal_kernel, joint_kernel: nominal sizes of `LARGE_KERNELS`.
        temporal_padding: what a temporal convolution sees beyond the clip's ends.
        select: how near and far are combined.
        gate: "mul" multiplies by the proposal, "none" does not.

    Raises:
        ValueError: a kernel size that the table lacks, or an odd C.
    """

    def __init__(
        self,
        *,
        dim: int,
        axes: SsraAxes,
        hop_distances: list[list[int]],
        joint_op: JointOperator,
        temporal_kernel: int,
        joint_kernel: int,
        temporal_padding: Padding,
        select: Selection,
        gate: Gate,
    ) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim={dim} is odd, but SSRA halves the channels; choose an even dim.")
        over_frames = decompose_large_kernel(temporal_kernel, "temporal_kernel")
        over_joints = decompose_large_kernel(joint_kernel, "joint_kernel")
        self.gate = gate
        self.proposal = ChannelLinear(dim, dim)
        self.near = nn.Sequential()
        self.far = nn.Sequential()
        if axes != "frame":
            self.near.append(
                HopOperator(dim=dim, hop_distances=hop_distances, max_hop=NEAR_MAX_HOP)
                if joint_op == "hop"
                else DepthwiseConvolution(
                    dim=dim, axis="joint", size=over_joints.near, dilation=1, padding="zeros"
                )
            )
            self.far.append(
                HopOperator(dim=dim, hop_distances=hop_distances, max_hop=FAR_MAX_HOP)
                if joint_op == "hop"
                else DepthwiseConvolution(
                    dim=dim,
                    axis="joint",
                    size=over_joints.far,
                    dilation=over_joints.dilation,
                    padding="zeros",
                )
            )
        if axes != "joint":
            self.near.append(
                DepthwiseConvolution(
                    dim=dim, axis="frame", size=over_frames.near, dilation=1, padding=temporal_padding
                )
            )
            self.far.append(
                DepthwiseConvolution(
                    dim=dim,
                    axis="frame",
                    size=over_frames.far,
                    dilation=over_frames.dilation,
                    padding=temporal_padding,
                )
            )
        self.select = build_selection(select, dim=dim, axes=axes)

    def forward(self, u: Float[Tensor, "batch frame joint dim"]) -> Float[Tensor, "batch frame joint dim"]:
        """Refined features, not yet projected."""
        proposal = F.gelu(self.proposal(by_channel(u)))
        near = self.near(proposal)
        selected = self.select(near, self.far(near))
        return channels_last(proposal * selected if self.gate == "mul" else selected)


def build_selection(select: Selection, *, dim: int, axes: SsraAxes) -> nn.Module:
    """The module that combines near and far features, by its config name."""
    if select == "lsk":
        return LskSelection(dim=dim, axes=axes)
    if select == "hlk":
        return HlkSelection(dim=dim)
    if select == "lska":
        return LskaSelection(dim=dim)
    if select == "token_softmax":
        return TokenSoftmaxSelection(dim=dim)
    assert select == "none", select
    return NoSelection(dim=dim)
