"""SSRA and its depthwise operators against slow twins written as loops."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from core.skeleton import H36M_17, SMPL_24
from core.ssr_stf.depthwise import (
    MATRIX_MAX_FRAMES,
    ChannelLinear,
    DepthwiseConvolution,
    HopOperator,
    by_channel,
    channels_last,
)
from core.ssr_stf.skeleton_attention import (
    FAR_MAX_HOP,
    LARGE_KERNELS,
    NEAR_MAX_HOP,
    SkeletonSelectiveRefineAttention,
    decompose_large_kernel,
    mean_and_maximum,
)

HOPS = H36M_17.hop_distances()


def on_last(operator: torch.nn.Module, x: Tensor) -> Tensor:
    """The operator, which works by channel, on channels-last features."""
    return channels_last(operator(by_channel(x)))


def hop_naive(module: HopOperator, hop_distances: list[list[int]], x: Tensor) -> Tensor:
    """y_j = Σ_h w[c, h] · mean over {i : hop(i, j) = h} of x_i, + b."""
    out = torch.zeros_like(x)
    num_joints = x.shape[2]
    for joint in range(num_joints):
        out[:, :, joint] = module.bias
        for hop in range(len(module.weight)):
            members = [i for i in range(num_joints) if hop_distances[joint][i] == hop]
            if members:
                mean = sum(x[:, :, i] for i in members) / len(members)
                out[:, :, joint] = out[:, :, joint] + module.weight[hop] * mean
    return out


def convolve_naive(module: DepthwiseConvolution, x: Tensor) -> Tensor:
    """Depthwise dilated convolution, one output slice and one tap at a time."""
    dim = 1 if module.axis == "frame" else 2
    length, size = x.shape[dim], module.weight.shape[2]
    slices = []
    for position in range(length):
        y = module.bias.expand_as(x.select(dim, 0))
        for tap in range(size):
            source = position + module.offsets[tap]
            if module.replicate:
                source = min(max(source, 0), length - 1)
            if 0 <= source < length:
                y = y + x.select(dim, source) * module.weight[:, 0, tap, 0]
        slices.append(y)
    return torch.stack(slices, dim)


def linear_naive(linear: torch.nn.Linear, x: Tensor) -> Tensor:
    return torch.stack(
        [
            sum(x[..., i] * row[i] for i in range(len(row))) + b
            for row, b in zip(linear.weight, linear.bias, strict=True)
        ],
        -1,
    )


def selection_maps_naive(conv: torch.nn.Conv2d, mean: Tensor, maximum: Tensor) -> Tensor:
    """Zero-padded correlation of the mean and maximum maps, position by position."""
    batch, frames, joints = mean.shape
    _, _, tall, wide = conv.weight.shape
    out = torch.zeros(batch, 2, frames, joints, dtype=mean.dtype)
    for o, t, j in itertools.product(range(2), range(frames), range(joints)):
        total = conv.bias[o].expand(batch)
        for source, plane in enumerate((mean, maximum)):
            for u, v in itertools.product(range(tall), range(wide)):
                row, column = t + u - tall // 2, j + v - wide // 2
                if 0 <= row < frames and 0 <= column < joints:
                    total = total + conv.weight[o, source, u, v] * plane[:, row, column]
        out[:, o, t, j] = 1 / (1 + torch.exp(-total))
    return out


def select_naive(name: str, module: torch.nn.Module, near: Tensor, far: Tensor) -> Tensor:
    if name == "hlk":
        return linear_naive(module.out, torch.cat((near, far), -1))
    if name == "lska":
        return linear_naive(module.out, far)
    near, far = linear_naive(module.near, near), linear_naive(module.far, far)
    if name == "lsk":
        both = torch.cat((near, far), -1)
        mean = sum(both[..., c] for c in range(both.shape[-1])) / both.shape[-1]
        maps = selection_maps_naive(module.conv, mean, both.max(-1).values)
        near, far = maps[:, 0, ..., None] * near, maps[:, 1, ..., None] * far
    if name == "token_softmax":
        logits = linear_naive(module.weigh, torch.cat((near, far), -1)).exp()
        near = near * logits[..., :1] / logits.sum(-1, keepdim=True)
        far = far * logits[..., 1:] / logits.sum(-1, keepdim=True)
    return linear_naive(module.out, near + far)


def ssra_naive(module: SkeletonSelectiveRefineAttention, select: str, u: Tensor) -> Tensor:
    def depthwise(operators: torch.nn.Sequential, x: Tensor) -> Tensor:
        for operator in operators:
            x = (
                hop_naive(operator, HOPS, x)
                if isinstance(operator, HopOperator)
                else convolve_naive(operator, x)
            )
        return x

    proposal = linear_naive(module.proposal, u)
    proposal = proposal * (1 + torch.erf(proposal / math.sqrt(2))) / 2
    near = depthwise(module.near, proposal)
    far = depthwise(module.far, near)
    selected = select_naive(select, module.select, near, far)
    return proposal * selected if module.gate == "mul" else selected


def ssra(**changes: object) -> SkeletonSelectiveRefineAttention:
    torch.manual_seed(0)
    settings = {
        "dim": 4,
        "axes": "joint_and_frame",
        "hop_distances": HOPS,
        "joint_op": "hop",
        "temporal_kernel": 11,
        "joint_kernel": 7,
        "temporal_padding": "zeros",
        "select": "lsk",
        "gate": "mul",
    }
    module = SkeletonSelectiveRefineAttention(**(settings | changes)).double()
    for parameter in module.parameters():  # nothing may hide behind a zero initialisation
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def assert_equals_twin(module: SkeletonSelectiveRefineAttention, select: str, x: Tensor) -> None:
    """Values with and without autograd, and every gradient."""
    x = x.clone().requires_grad_()
    inputs = (x, *module.parameters())
    wanted = ssra_naive(module, select, x)
    found = module(x)
    torch.testing.assert_close(found, wanted, atol=1e-10, rtol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(module(x), wanted.detach(), atol=1e-10, rtol=1e-10)
    direction = torch.randn_like(wanted)
    for ours, theirs in zip(
        torch.autograd.grad(found, inputs, direction),
        torch.autograd.grad(wanted, inputs, direction),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("joint_op", ["index", "hop"])
@pytest.mark.parametrize("axes", ["joint_and_frame", "joint", "frame"])
@pytest.mark.parametrize("select", ["lsk", "hlk", "lska", "token_softmax", "none"])
def test_ssra_equals_naive_twin(select: str, axes: str, joint_op: str) -> None:
    module = ssra(select=select, axes=axes, joint_op=joint_op)
    assert_equals_twin(module, select, torch.randn(2, 3, 17, 4, dtype=torch.float64))


@pytest.mark.parametrize("gate", ["mul", "none"])
@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("temporal_kernel", [7, 11, 23, 35])
@pytest.mark.parametrize("num_frames", [1, 3, 10])
def test_temporal_kernels_padding_and_gate_equal_naive_twin(
    temporal_kernel: int, padding: str, gate: str, num_frames: int
) -> None:
    module = ssra(
        select="lska", axes="frame", temporal_kernel=temporal_kernel, temporal_padding=padding, gate=gate
    )
    assert_equals_twin(module, "lska", torch.randn(2, num_frames, 17, 4, dtype=torch.float64))


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("temporal_kernel", [7, 11, 23, 35])
def test_long_clips_taps_equal_naive_twin(
    temporal_kernel: int, num_frames: int, padding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("core.ssr_stf.depthwise.MATRIX_MAX_FRAMES", 0)
    module = ssra(select="lska", axes="frame", temporal_kernel=temporal_kernel, temporal_padding=padding)
    assert_equals_twin(module, "lska", torch.randn(2, num_frames, 17, 4, dtype=torch.float64))


@pytest.mark.parametrize("padding", ["zeros", "replicate"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolution_is_the_same_on_both_sides_of_the_length_that_changes_its_method(
    padding: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    module = DepthwiseConvolution(dim=4, axis="frame", size=5, dilation=2, padding=padding)
    x = torch.randn(4, MATRIX_MAX_FRAMES + 1, 2, 3).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        by_taps = module(x)
        monkeypatch.setattr("core.ssr_stf.depthwise.MATRIX_MAX_FRAMES", MATRIX_MAX_FRAMES + 1)
        by_matrices = module(x)
    assert by_taps.dtype == by_matrices.dtype == dtype
    rounding = 1e-6 if dtype == torch.float32 else 0.01
    torch.testing.assert_close(by_taps, by_matrices, atol=5 * rounding, rtol=0)
    inputs, direction = (x, *module.parameters()), torch.randn_like(by_taps)
    for ours, theirs in zip(
        torch.autograd.grad(by_taps, inputs, direction),
        torch.autograd.grad(by_matrices, inputs, direction),
        strict=True,
    ):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, atol=float(5 * rounding * theirs.abs().max()), rtol=0)


def test_by_channel_and_channels_last_are_inverse_and_their_gradients_lie_in_order() -> None:
    x = torch.randn(2, 3, 5, 4, requires_grad=True)
    y = by_channel(x)
    assert y.shape == (4, 3, 2, 5)
    assert y[1, 2, 0, 3] == x[0, 2, 3, 1]
    assert torch.equal(channels_last(y), x)
    assert channels_last(y).is_contiguous()
    direction = torch.randn(4, 3, 5, 2).transpose(2, 3)
    (grad,) = torch.autograd.grad(y, x, direction)
    assert torch.equal(by_channel(grad), direction)


def test_what_changes_the_layout_gives_and_receives_features_in_order() -> None:
    x, z = torch.randn(2, 3, 5, 4, requires_grad=True), torch.randn(4, 3, 2, 5, requires_grad=True)
    mapped = ChannelLinear(4, 6)(by_channel(x))
    assert mapped.is_contiguous()
    (of_x,) = torch.autograd.grad(mapped, x, torch.randn_like(mapped))
    assert of_x.transpose(0, 1).is_contiguous()
    direction = torch.randn(2, 5, 3, 4).transpose(1, 2)
    (of_z,) = torch.autograd.grad(channels_last(z), z, direction)
    assert of_z.is_contiguous()
    assert torch.equal(channels_last(of_z), direction)


def test_of_one_clip_channels_last_is_a_view() -> None:
    x = torch.randn(4, 3, 1, 5)
    y = channels_last(x)
    assert y.shape == (1, 3, 5, 4)
    assert y.data_ptr() == x.data_ptr()
    assert torch.equal(y, channels_last(torch.cat((x, x), 2))[:1])


@pytest.mark.parametrize("replicate", [False, True])
def test_a_convolution_over_groups_of_channels_is_that_over_all(
    replicate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    conv = DepthwiseConvolution(
        dim=7, axis="frame", size=5, dilation=2, padding="replicate" if replicate else "zeros"
    )
    x = torch.randn(7, MATRIX_MAX_FRAMES + 1, 2, 3, requires_grad=True)
    inputs = (x, *conv.parameters())
    at_once = conv(x)
    direction = torch.randn_like(at_once)
    grads_at_once = torch.autograd.grad(at_once, inputs, direction)
    monkeypatch.setattr("core.ssr_stf.depthwise.MAX_GROUP_BYTES", x.numel() * x.element_size() // 3)
    in_groups = conv(x)
    torch.testing.assert_close(in_groups, at_once, atol=0, rtol=0)
    for ours, theirs in zip(torch.autograd.grad(in_groups, inputs, direction), grads_at_once, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("skeleton", [H36M_17, SMPL_24], ids=lambda skeleton: skeleton.name)
@pytest.mark.parametrize("max_hop", [NEAR_MAX_HOP, FAR_MAX_HOP, 20])
@torch.no_grad()
def test_hop_operator_equals_naive_twin(skeleton: object, max_hop: int) -> None:
    torch.manual_seed(0)
    hops = skeleton.hop_distances()
    module = HopOperator(dim=3, hop_distances=hops, max_hop=max_hop).double()
    x = torch.randn(2, 4, len(hops), 3, dtype=torch.float64)
    torch.testing.assert_close(on_last(module, x), hop_naive(module, hops, x), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("max_hop", [NEAR_MAX_HOP, FAR_MAX_HOP])
@torch.no_grad()
def test_hop_operator_does_not_care_how_joints_are_listed(max_hop: int) -> None:
    order = torch.randperm(17, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled_hops = [[HOPS[i][j] for j in order] for i in order]
    module = HopOperator(dim=3, hop_distances=HOPS, max_hop=max_hop)
    shuffled = HopOperator(dim=3, hop_distances=shuffled_hops, max_hop=max_hop)
    shuffled.load_state_dict(module.state_dict())
    x = torch.randn(2, 4, 17, 3)
    torch.testing.assert_close(on_last(shuffled, x[:, :, order]), on_last(module, x)[:, :, order])


@pytest.mark.parametrize("max_hop", [NEAR_MAX_HOP, FAR_MAX_HOP])
@torch.no_grad()
def test_hop_operator_commutes_with_mirroring_and_index_convolution_does_not(max_hop: int) -> None:
    mirror = list(H36M_17.mirror_permutation)
    x = torch.randn(2, 4, 17, 3)
    hop = HopOperator(dim=3, hop_distances=HOPS, max_hop=max_hop)
    torch.testing.assert_close(on_last(hop, x[:, :, mirror]), on_last(hop, x)[:, :, mirror])
    index = DepthwiseConvolution(dim=3, axis="joint", size=3, dilation=1, padding="zeros")
    assert (on_last(index, x[:, :, mirror]) - on_last(index, x)[:, :, mirror]).abs().max() > 0.01


@torch.no_grad()
def test_hop_operator_sees_true_neighbours_only() -> None:
    module = HopOperator(dim=1, hop_distances=HOPS, max_hop=1)
    x = torch.zeros(1, 1, 17, 1)
    changed = H36M_17.index("right_ankle")
    touched = torch.zeros(1, 1, 17, 1)
    touched[0, 0, changed] = 1
    reached = (on_last(module, touched) - on_last(module, x)).flatten().nonzero().flatten().tolist()
    assert reached == sorted([changed, H36M_17.index("right_knee")])


@pytest.mark.parametrize("nominal", list(LARGE_KERNELS))
@torch.no_grad()
def test_decomposed_kernels_reach_as_far_as_their_nominal_size(nominal: int) -> None:
    module = ssra(axes="frame", temporal_kernel=nominal)
    x = torch.zeros(1, 101, 17, 4, dtype=torch.float64)
    touched = x.clone()
    touched[:, 50] = 1
    far = torch.nn.Sequential(module.near, module.far)
    difference = on_last(far, touched) - on_last(far, x)
    reached = difference.abs().amax((0, 2, 3)).nonzero().flatten()
    assert reached.max() - reached.min() + 1 == nominal


@torch.no_grad()
def test_replicate_padding_leaves_a_motionless_clip_motionless() -> None:
    still = torch.randn(2, 1, 17, 4, dtype=torch.float64).expand(2, 9, 17, 4)
    module = ssra(temporal_padding="replicate", temporal_kernel=23)
    far = on_last(torch.nn.Sequential(module.near, module.far), still)
    torch.testing.assert_close(far, far[:, :1].expand_as(far))
    module = ssra(temporal_padding="zeros", temporal_kernel=23)
    far = on_last(torch.nn.Sequential(module.near, module.far), still)
    assert (far - far[:, :1]).abs().max() > 0.1


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 0.01)])
def test_mean_and_maximum_are_those_of_both_halves_side_by_side(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    near, far = torch.randn(2, 4, 3, 2, 5, dtype=dtype).requires_grad_().unbind()
    maps = mean_and_maximum(near, far)
    both = torch.cat((near, far))
    wanted = torch.stack((both.mean(0), both.amax(0)))
    torch.testing.assert_close(maps, wanted, atol=tolerance, rtol=0)
    direction = torch.randn_like(maps)
    for ours, plain in zip(
        torch.autograd.grad(maps, (near, far), direction, retain_graph=True),
        torch.autograd.grad(wanted, (near, far), direction),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain, atol=tolerance, rtol=0)


def test_equal_weight_softmax_selection_at_initialisation() -> None:
    settings = {"axes": "frame", "joint_op": "index", "temporal_kernel": 7, "joint_kernel": 7}
    settings |= {"temporal_padding": "zeros", "gate": "mul", "hop_distances": HOPS, "dim": 4}
    select = SkeletonSelectiveRefineAttention(select="token_softmax", **settings).select
    near, far = torch.randn(2, 1, 2, 17, 4)
    near, far = by_channel(near), by_channel(far)
    torch.testing.assert_close(select(near, far), select.out((select.near(near) + select.far(far)) / 2))


def test_unknown_kernel_size_names_its_key_and_the_choices() -> None:
    with pytest.raises(ValueError, match=r"temporal_kernel=9 .* 7, 11, 23, 35"):
        ssra(temporal_kernel=9)
    with pytest.raises(ValueError, match="joint_kernel=3"):
        ssra(joint_kernel=3)
    assert decompose_large_kernel(23, "temporal_kernel") == (5, 7, 3)


def test_odd_width_is_refused() -> None:
    with pytest.raises(ValueError, match="dim=5 is odd"):
        ssra(dim=5)
