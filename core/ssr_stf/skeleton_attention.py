"""Skeleton selective refine attention (SSRA): local dependencies by a decomposed large kernel.

The source names the module and its purpose; what it computes here is the reading that docs/ssr_stf.md lays
out with its confidence: near and far depthwise operators (LSKA, Lau et al. 2023), a selection between them
(LSKNet, Li et al. 2023), and a multiplicative gate.

Shapes: B clips, T frames, J joints, C channels, N hop distances.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.linear import Linear, LinearGelu

SsraAxes = Literal["joint_and_frame", "joint", "frame"]
JointOperator = Literal["index", "hop"]
Selection = Literal["lsk", "hlk", "lska", "token_softmax", "none"]
Gate = Literal["mul", "none"]
TemporalPadding = Literal["zeros", "replicate"]

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


class HopOperator(nn.Module):
    """Depthwise operator on the bone graph: a weight per channel and hop distance.

    y_j = Σ_h weight[c, h] · mean over {i : hop(i, j) = h} of x_i, + bias[c]. A joint without any joint at
    distance h gets nothing from h. Unlike a convolution over joint indices it mixes true neighbours only and
    does not care in which order a skeleton lists its joints.

    Args:
        dim: channels C.
        hop_distances: (J, J) numbers of bones between two joints.
        max_hop: the largest distance seen, N - 1.
    """

    at_hop: Tensor

    def __init__(self, *, dim: int, hop_distances: list[list[int]], max_hop: int) -> None:
        super().__init__()
        at_hop = torch.tensor(hop_distances) == torch.arange(max_hop + 1)[:, None, None]
        self.register_buffer("at_hop", at_hop, persistent=False)  # (N, J, J): [h, j, i]
        self.num_pairs_in_reach = sum(distance <= max_hop for row in hop_distances for distance in row)
        bound = (max_hop + 1) ** -0.5  # as nn.Conv2d initialises a depthwise kernel of as many taps
        self.weight = nn.Parameter(torch.empty(max_hop + 1, dim).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(dim).uniform_(-bound, bound))

    def forward(self, x: Float[Tensor, "batch frame joint dim"]) -> Float[Tensor, "batch frame joint dim"]:
        """Applies the operator within every frame."""
        # Divided here, because 1/3 stored in float32 would spoil a float64 model.
        at_hop = self.at_hop.to(x.dtype)
        hop_means = at_hop / at_hop.sum(-1, keepdim=True).clamp(min=1)
        if len(self.weight) == 2:
            y = torch.addcmul(self.bias.to(x), x, self.weight[0].to(x))
            return torch.addcmul(y, hop_means[1] @ x, self.weight[1].to(x))
        # For several hops one J × J matrix per channel is cheaper than a pass over the tokens per hop.
        joint_from_joint = torch.einsum("hji,hc->cij", hop_means, self.weight.to(x))
        by_channel = x.flatten(0, 2).T.reshape(x.shape[3], -1, x.shape[2])
        y = torch.baddbmm(self.bias.to(x)[:, None, None], by_channel, joint_from_joint)
        return y.flatten(1).T.contiguous().view(x.shape)


class DepthwiseConvolution(nn.Conv2d):
    """Depthwise convolution of (B, T, J, C) along the frames or the joints, length kept.

    Channels-last tensors seen as (…, C, length, other) are in Conv2d's channels-last memory format, its fast
    path, so nothing is copied. On the CPU the backward pass of a dilated depthwise convolution is 3-6× slower
    than that of a dense one, so in training the kernel's gaps are filled with zeros there.
    """

    def __init__(
        self, *, dim: int, axis: Literal["frame", "joint"], size: int, dilation: int, padding: TemporalPadding
    ) -> None:
        super().__init__(dim, dim, (size, 1), groups=dim)
        self.axis = axis
        self.gap = dilation
        self.reach = dilation * (size // 2)
        self.replicate = padding == "replicate"

    def forward(self, x: Float[Tensor, "batch frame joint dim"]) -> Float[Tensor, "batch frame joint dim"]:
        """Convolves every channel by itself."""
        if self.axis == "frame":
            return self.convolve(x)
        return self.convolve(x.flatten(0, 1).unsqueeze(2)).squeeze(2).view_as(x)

    def convolve(self, x: Float[Tensor, "batch length other dim"]) -> Float[Tensor, "batch length other dim"]:
        """Convolves along `length`."""
        padding = self.reach
        if self.replicate:
            x, padding = replicate_ends(x, 1, self.reach), 0
        weight, dilation = self.weight, self.gap
        if dilation > 1 and torch.is_grad_enabled() and x.device.type == "cpu":
            weight, dilation = fill_gaps(weight, dilation), 1
        y = F.conv2d(
            x.permute(0, 3, 1, 2),
            weight,
            self.bias,
            padding=(padding, 0),
            dilation=dilation,
            groups=x.shape[3],
        )
        return y.permute(0, 2, 3, 1)


def fill_gaps(kernel: Float[Tensor, "dim 1 size 1"], dilation: int) -> Float[Tensor, "dim 1 dilated_size 1"]:
    """The dense kernel, zero between its taps, that equals a dilated one."""
    dim, _, size, _ = kernel.shape
    dense = kernel.new_zeros(dim, 1, dilation * (size - 1) + 1, 1)
    dense[:, :, ::dilation] = kernel
    return dense


def replicate_ends(x: Float[Tensor, "*shape"], dim: int, count: int) -> Float[Tensor, "*padded_shape"]:
    """Repeats the first and the last slice along `dim` `count` times; channels-last memory stays so."""
    length = x.shape[dim]
    first, last = x.narrow(dim, 0, 1), x.narrow(dim, length - 1, 1)
    ends = [1] * x.ndim
    ends[dim] = count
    return torch.cat((first.repeat(ends), x, last.repeat(ends)), dim)


class LskSelection(nn.Module):
    """LSKNet's spatial selection: two sigmoid maps, from channel mean and maximum, weigh near against far.

    LSKNet (Li et al., ICCV 2023, eq. 3-8). The maps are convolved over the axes that SSRA works on.
    """

    def __init__(self, *, dim: int, axes: SsraAxes) -> None:
        super().__init__()
        half = dim // 2
        self.near = Linear(dim, half)
        self.far = Linear(dim, half)
        over_frames = SELECTION_KERNEL if axes != "joint" else 1
        over_joints = SELECTION_KERNEL if axes != "frame" else 1
        self.conv = nn.Conv2d(2, 2, (over_frames, over_joints), padding=(over_frames // 2, over_joints // 2))
        self.out = Linear(half, dim)

    def forward(
        self, near: Float[Tensor, "batch frame joint dim"], far: Float[Tensor, "batch frame joint dim"]
    ) -> Float[Tensor, "batch frame joint dim"]:
        """Selected features, as many channels as came in."""
        near, far = self.near(near), self.far(far)
        mean = (near.mean(-1) + far.mean(-1)) / 2
        maximum = torch.maximum(near.amax(-1), far.amax(-1))
        maps = torch.stack((mean, maximum), -1).permute(0, 3, 1, 2)
        weights = self.conv(maps).sigmoid().unsqueeze(-1)
        return self.out(torch.addcmul(near * weights[:, 0], far, weights[:, 1]))


class HlkSelection(nn.Module):
    """LCRNet's HLKConv: one linear map of near and far side by side, no selection map."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.out = Linear(2 * dim, dim)

    def forward(
        self, near: Float[Tensor, "batch frame joint dim"], far: Float[Tensor, "batch frame joint dim"]
    ) -> Float[Tensor, "batch frame joint dim"]:
        """W [near; far] + b."""
        return self.out(torch.cat((near, far), -1))


class LskaSelection(nn.Module):
    """LSKA as published: the far features alone."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.out = Linear(dim, dim)

    def forward(
        self, near: Float[Tensor, "batch frame joint dim"], far: Float[Tensor, "batch frame joint dim"]
    ) -> Float[Tensor, "batch frame joint dim"]:
        """W far + b."""
        return self.out(far)


class TokenSoftmaxSelection(nn.Module):
    """Every token weighs its own near against its own far features; equal weights at initialisation."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.near = Linear(dim, half)
        self.far = Linear(dim, half)
        self.weigh = nn.Linear(2 * half, 2)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)
        self.out = Linear(half, dim)

    def forward(
        self, near: Float[Tensor, "batch frame joint dim"], far: Float[Tensor, "batch frame joint dim"]
    ) -> Float[Tensor, "batch frame joint dim"]:
        """Softmax-weighted sum of both, mapped back to C channels."""
        near, far = self.near(near), self.far(far)
        weights = self.weigh(torch.cat((near, far), -1)).softmax(-1)
        return self.out(torch.addcmul(near * weights[..., :1], far, weights[..., 1:]))


class NoSelection(nn.Module):
    """The sum of near and far features: `LskSelection` with both maps fixed at one."""

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.near = Linear(dim, half)
        self.far = Linear(dim, half)
        self.out = Linear(half, dim)

    def forward(
        self, near: Float[Tensor, "batch frame joint dim"], far: Float[Tensor, "batch frame joint dim"]
    ) -> Float[Tensor, "batch frame joint dim"]:
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
        temporal_padding: TemporalPadding,
        select: Selection,
        gate: Gate,
    ) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim={dim} is odd, but SSRA halves the channels; choose an even dim.")
        over_frames = decompose_large_kernel(temporal_kernel, "temporal_kernel")
        over_joints = decompose_large_kernel(joint_kernel, "joint_kernel")
        self.gate = gate
        self.proposal = LinearGelu(dim, dim)
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
        proposal = self.proposal(u)
        near = self.near(proposal)
        selected = self.select(near, self.far(near))
        return proposal * selected if self.gate == "mul" else selected


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
