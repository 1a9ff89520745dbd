"""Depthwise operators along the joints and along the frames, each channel by itself, and the layout they work in.

By channel, as (C, T, B, J), such an operator is one matrix product per channel, and a linear map of the channels a
single one, without a copy in between (docs/ssr_stf.md, "Speed").

Shapes: B clips, T frames, J joints, C channels, N hop distances, K taps of a kernel.
"""

from collections.abc import Iterator
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Padding = Literal["zeros", "replicate"]

# Up to this length a convolution along the frames is a matrix product, zeros included. Beyond, where the zeros
# would cost more than they save, it is a sum over the taps of its kernel. On a GPU later: a sum is dozens of
# operations to begin, where a product is one (not timed).
MATRIX_MAX_FRAMES = 64
MATRIX_MAX_FRAMES_ON_GPU = 256

# Of a group of channels that are convolved together, for each thread: it and as much again should stay in a core's
# own cache.
MAX_GROUP_BYTES = 600_000


def by_channel(x: Float[Tensor, "batch frame joint dim"]) -> Float[Tensor, "dim frame batch joint"]:
    """Channels-last features by channel, for a `ChannelLinear`.

    Clips and frames change places in memory; channels, which a matrix product takes in either order, in name alone.
    """
    return x.transpose(0, 1).contiguous().permute(3, 0, 1, 2)


def channels_last(x: Float[Tensor, "dim frame batch joint"]) -> Float[Tensor, "batch frame joint dim"]:
    """The inverse of `by_channel`, in memory, too; of one clip in name alone, which suits `ResidualLinear`."""
    if x.shape[2] == 1:
        return x.permute(2, 1, 3, 0)
    y: Tensor = _ChannelsLast.apply(x)
    return y


class ChannelLinear(nn.Linear):
    """W x + b of by-channel features."""

    def forward(
        self, x: Float[Tensor, "dim frame batch joint"]
    ) -> Float[Tensor, "dim_out frame batch joint"]:
        """Maps every token."""
        return torch.addmm(self.bias[:, None], self.weight, x.flatten(1)).unflatten(1, x.shape[1:])


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

    def forward(self, x: Float[Tensor, "dim frame batch joint"]) -> Float[Tensor, "dim frame batch joint"]:
        """Applies the operator within every frame."""
        # Divided here, because 1/3 stored in float32 would spoil a float64 model.
        at_hop = self.at_hop.to(self.weight.dtype)
        hop_means = at_hop / at_hop.sum(-1, keepdim=True).clamp(min=1)
        return _along_joints(x, _weigh(hop_means, self.weight.T), self.bias)


class DepthwiseConvolution(nn.Conv2d):
    """Depthwise convolution of by-channel features along the joints or the frames, length kept.

    Args:
        dim: channels C.
        axis: what it convolves along.
        size, dilation: of the kernel; an odd number of taps, and how far apart they are.
        padding: what it sees beyond the ends.
    """

    taps: Tensor

    def __init__(
        self, *, dim: int, axis: Literal["frame", "joint"], size: int, dilation: int, padding: Padding
    ) -> None:
        super().__init__(dim, dim, (size, 1), groups=dim)
        self.axis = axis
        self.offsets = [dilation * (tap - size // 2) for tap in range(size)]
        # On the device: a GPU would wait for numbers that are brought to it in each pass.
        self.register_buffer("taps", torch.tensor(self.offsets)[:, None], persistent=False)
        self.replicate = padding == "replicate"

    def forward(self, x: Float[Tensor, "dim frame batch joint"]) -> Float[Tensor, "dim frame batch joint"]:
        """Convolves every channel by itself."""
        assert self.bias is not None
        if self.axis == "joint":
            return _along_joints(x, self.matrices(x.shape[3]), self.bias)
        if x.shape[1] <= (MATRIX_MAX_FRAMES if x.device.type == "cpu" else MATRIX_MAX_FRAMES_ON_GPU):
            return _along_frames(x, self.matrices(x.shape[1]), self.bias)
        y: Tensor = _SumOverTaps.apply(
            x.flatten(2),
            self.weight[:, 0, :, 0].to(x.dtype),
            self.bias.to(x.dtype),
            self.offsets,
            self.replicate,
        )
        return y.view(x.shape)

    def matrices(self, length: int) -> Float[Tensor, "dim {length} {length}"]:
        """For every channel the matrix whose product with a sequence is its convolution, the bias apart."""
        position = torch.arange(length, device=self.taps.device)
        source = position + self.taps  # (K, length)
        if self.replicate:
            source = source.clamp(0, length - 1)
        return _weigh(source[:, :, None] == position, self.weight[:, 0, :, 0])


def _weigh(
    matrices: Float[Tensor, "tap to from"] | Bool[Tensor, "tap to from"], weight: Float[Tensor, "dim tap"]
) -> Float[Tensor, "dim to from"]:
    """For every channel its own weighted sum of the matrices."""
    return (weight @ matrices.flatten(1).to(weight.dtype)).unflatten(1, matrices.shape[1:])


def _along_joints(
    x: Float[Tensor, "dim frame batch joint"],
    matrices: Float[Tensor, "dim joint joint"],
    bias: Float[Tensor, "dim"],
) -> Float[Tensor, "dim frame batch joint"]:
    """The product of each channel's matrix, [to, from], with the joints of every frame."""
    return torch.baddbmm(bias[:, None, None], x.flatten(1, 2), matrices.transpose(1, 2)).view(x.shape)


def _along_frames(
    x: Float[Tensor, "dim frame batch joint"],
    matrices: Float[Tensor, "dim frame frame"],
    bias: Float[Tensor, "dim"],
) -> Float[Tensor, "dim frame batch joint"]:
    """The product of each channel's matrix, [to, from], with the frames of every joint."""
    return torch.baddbmm(bias[:, None, None], matrices, x.flatten(2)).view(x.shape)


class _ChannelsLast(torch.autograd.Function):
    """Permutes axes in memory. So does its gradient, lest all operators before it work on a strided one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.permute(2, 1, 3, 0).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        frame_first = grad.transpose(0, 1)
        # Of two axes PyTorch transposes by tiles, of more number by number: half the time.
        return frame_first.flatten(0, -2).t().contiguous().unflatten(1, frame_first.shape[:-1])


class _SumOverTaps(torch.autograd.Function):
    """Depthwise convolution of (C, T, B·J) along T as a sum of shifted copies, none of which is ever made.

    Group of channels by group, so that what is being added up stays in the processor's cache.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, offsets: list[int], replicate: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.offsets, ctx.replicate = offsets, replicate
        y = torch.empty_like(x)
        for in_x, of_y, by, plus in _channel_groups(x, y, weight[:, :, None, None], bias[:, None, None]):
            for tap, to, source in _shifts(x.shape[1], offsets):
                if to == source:
                    torch.addcmul(plus, in_x, by[:, tap], out=of_y)
                else:
                    of_y[:, to].addcmul_(in_x[:, source], by[:, tap])
        if replicate:
            for to, end, seen_by in _beyond_ends(x, offsets):
                y[:, to].addcmul_((weight @ seen_by)[:, :, None], x[:, end])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        for in_x, given, of_x, of_weight, by in _channel_groups(
            x, grad, grad_x, grad_weight, weight[:, :, None, None]
        ):
            for tap, to, source in _shifts(x.shape[1], ctx.offsets):
                if to == source:
                    torch.mul(given, by[:, tap], out=of_x)
                else:
                    of_x[:, source].addcmul_(given[:, to], by[:, tap])
                of_weight[:, tap] = torch.linalg.vecdot(in_x[:, source].flatten(1), given[:, to].flatten(1))
        if ctx.replicate:
            for to, end, seen_by in _beyond_ends(x, ctx.offsets):
                grad_x[:, end] += ((weight @ seen_by)[:, :, None] * grad[:, to]).sum(1, keepdim=True)
                grad_weight += (x[:, end] * grad[:, to]).sum(2) @ seen_by.T
        return grad_x, grad_weight, grad.sum((1, 2)), None, None


def _channel_groups(features: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """All tensors by groups of channels, as equal as can be."""
    num_bytes = features.numel() * features.element_size()
    at_once = MAX_GROUP_BYTES * torch.get_num_threads()
    num_groups = -(-num_bytes // at_once) if features.device.type == "cpu" else 1
    groups = (tensor.tensor_split(min(num_groups, len(tensor))) for tensor in (features, *others))
    yield from zip(*groups, strict=True)


def _shifts(length: int, offsets: list[int]) -> Iterator[tuple[int, slice, slice]]:
    """Tap, outputs, and the inputs that the tap adds to them; that of the outputs themselves comes first."""
    for tap, offset in sorted(enumerate(offsets), key=lambda tap_and_offset: abs(tap_and_offset[1])):
        beyond = min(abs(offset), length)
        first, last = slice(0, length - beyond), slice(beyond, length)
        yield (tap, last, first) if offset < 0 else (tap, first, last)


def _beyond_ends(
    x: Float[Tensor, "dim frame token"], offsets: list[int]
) -> Iterator[tuple[slice, slice, Float[Tensor, "tap to"]]]:
    """For either end: the outputs near it, the last input there, and which taps of which output see beyond it."""
    length = x.shape[1]
    beyond = min(max(offsets), length)
    seen = torch.tensor(offsets)[:, None] + torch.arange(beyond)
    yield slice(0, beyond), slice(0, 1), (seen < 0).to(x)
    yield slice(length - beyond, length), slice(length - 1, length), (seen >= beyond).to(x)
