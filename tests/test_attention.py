"""Attention and rotary position against naive twins; SDPA against matrix products."""

import math

import pytest
import torch
from torch import Tensor

from core.ssr_stf.attention import (
    KEYS_FIRST_MAX_LENGTH,
    SDPA_MIN_LENGTH_ON_CPU,
    MultiHeadSelfAttention,
    RotaryTable,
    matmul_attention,
)


def attention(
    axis: str = "frame", *, dim: int = 8, num_heads: int = 2, **changes: object
) -> MultiHeadSelfAttention:
    torch.manual_seed(0)
    settings = {"rotary": None, "kernel": "auto"} | changes
    return MultiHeadSelfAttention(dim=dim, num_heads=num_heads, axis=axis, **settings).double()


def rotate_naive(vector: Tensor, frame: int, base: float) -> Tensor:
    """Turns the pairs (i, i + D/2) of one head's vector, one pair at a time."""
    half = len(vector) // 2
    out = vector.clone()
    for i in range(half):
        angle = frame * base ** (-i / half)
        first, second = vector[i], vector[i + half]
        out[i] = math.cos(angle) * first - math.sin(angle) * second
        out[i + half] = math.sin(angle) * first + math.cos(angle) * second
    return out


def attend_naive(module: MultiHeadSelfAttention, x: Tensor) -> Tensor:
    """Self-attention token by token and head by head."""
    batch, frames, joints, dim = x.shape
    head_dim = dim // module.num_heads
    out = torch.zeros_like(x)
    groups = (
        [[(b, t, j) for j in range(joints)] for b in range(batch) for t in range(frames)]
        if module.axis == "joint"
        else [[(b, t, j) for t in range(frames)] for b in range(batch) for j in range(joints)]
    )
    w_query, w_key, w_value = module.qkv.weight.chunk(3)
    for group in groups:
        for head in range(module.num_heads):
            rows = slice(head * head_dim, (head + 1) * head_dim)
            queries = [w_query[rows] @ x[token] for token in group]
            keys = [w_key[rows] @ x[token] for token in group]
            if module.rotary is not None:
                queries = [rotate_naive(q, t, module.rotary.base) for t, q in enumerate(queries)]
                keys = [rotate_naive(k, t, module.rotary.base) for t, k in enumerate(keys)]
            for token, query in zip(group, queries, strict=True):
                scores = torch.stack([query @ key / math.sqrt(head_dim) for key in keys]).softmax(0)
                for weight, other in zip(scores, group, strict=True):
                    out[token][rows] += weight * (w_value[rows] @ x[other])
    return out


@pytest.mark.parametrize("kernel", ["sdpa", "matmul"])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize(
    ("axis", "shape"), [("joint", (2, 3, 5, 8)), ("frame", (2, 7, 3, 8)), ("frame", (1, 1, 2, 8))]
)
@torch.no_grad()
def test_equals_naive_twin(axis: str, shape: tuple[int, ...], rotary: bool, kernel: str) -> None:
    table = RotaryTable(head_dim=4) if rotary else None
    module = attention(axis, rotary=table, kernel=kernel)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(module(x), attend_naive(module, x), atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("kernel", ["sdpa", "matmul"])
@pytest.mark.parametrize("rotary", [False, True])
@pytest.mark.parametrize("length", [3, KEYS_FIRST_MAX_LENGTH + 1])
def test_gradients_are_those_of_finite_differences(length: int, rotary: bool, kernel: str) -> None:
    torch.manual_seed(0)
    module = attention("frame", rotary=RotaryTable(head_dim=4) if rotary else None, kernel=kernel)
    x = torch.randn(1, length, 2, 8, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(module, x, fast_mode=True)


@pytest.mark.parametrize("length", [1, 9, KEYS_FIRST_MAX_LENGTH, KEYS_FIRST_MAX_LENGTH + 1, 81])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_matmul_equals_sdpa(length: int, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 4, 2, length, 8, dtype=dtype).requires_grad_().unbind(0)
    by_sdpa = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    by_matmul = matmul_attention(query, key, value)
    torch.testing.assert_close(by_matmul, by_sdpa, atol=tolerance, rtol=0)
    direction = torch.randn_like(by_sdpa)
    wanted = torch.autograd.grad(by_sdpa, (query, key, value), direction, retain_graph=True)
    found = torch.autograd.grad(by_matmul, (query, key, value), direction)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=10 * tolerance, rtol=0)


def test_auto_takes_sdpa_for_long_sequences_and_on_accelerators() -> None:
    def query(length: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(2, 2, length, 4, device=device, dtype=dtype)

    auto = attention(kernel="auto")
    assert not auto.uses_sdpa(query(SDPA_MIN_LENGTH_ON_CPU - 1))
    assert auto.uses_sdpa(query(SDPA_MIN_LENGTH_ON_CPU))
    assert auto.uses_sdpa(query(9, device="meta"))
    assert not auto.uses_sdpa(query(243, dtype=torch.bfloat16))
    with torch.no_grad():
        assert auto.uses_sdpa(query(243, dtype=torch.bfloat16))
    assert not attention(kernel="matmul").uses_sdpa(query(243))
    assert not attention(kernel="matmul").uses_sdpa(query(243, device="meta"))
    assert attention(kernel="sdpa").uses_sdpa(query(9))


@pytest.mark.parametrize("axis", ["joint", "frame"])
@torch.no_grad()
def test_without_position_attention_follows_a_permutation(axis: str) -> None:
    module = attention(axis)
    x = torch.randn(2, 6, 5, 8, dtype=torch.float64)
    dim = 2 if axis == "joint" else 1
    order = torch.randperm(x.shape[dim])
    torch.testing.assert_close(module(x.index_select(dim, order)), module(x).index_select(dim, order))


@torch.no_grad()
def test_rotary_scores_depend_on_the_difference_of_frames_only() -> None:
    table = RotaryTable(head_dim=8)
    torch.manual_seed(0)
    query, key = torch.randn(2, 8, dtype=torch.float64)
    queries, keys = table(query.expand(40, 8)), table(key.expand(40, 8))
    scores = queries @ keys.T
    for shift in (-20, 0, 7):
        diagonal = scores.diagonal(shift)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), atol=1e-12, rtol=0)
    assert (scores[0, 1] - scores[0, 2]).abs() > 1e-3


@torch.no_grad()
def test_rotary_keeps_lengths() -> None:
    x = torch.randn(3, 50, 6, dtype=torch.float64)
    torch.testing.assert_close(RotaryTable(head_dim=6)(x).norm(dim=-1), x.norm(dim=-1))


def test_rotary_table_grows_follows_the_dtype_and_stays_out_of_checkpoints() -> None:
    table = RotaryTable(head_dim=4)
    assert table(torch.ones(3, 4)).dtype == torch.float32
    long = table(torch.ones(30, 4, dtype=torch.float64))
    assert long.dtype == torch.float64
    assert len(table.cos) == 30
    torch.testing.assert_close(table(torch.ones(3, 4, dtype=torch.float64)), long[:3], atol=0, rtol=0)
    assert len(table.cos) == 30
    assert table.state_dict() == {}


def test_rotary_table_built_for_inference_serves_training() -> None:
    table = RotaryTable(head_dim=4)
    with torch.inference_mode():
        table(torch.ones(5, 4))
    x = torch.randn(5, 4, requires_grad=True)
    table(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_rotary_refuses_an_odd_number_of_channels_per_head() -> None:
    with pytest.raises(ValueError, match="even number of channels per head"):
        RotaryTable(head_dim=5)


def test_refuses_a_width_that_heads_do_not_divide() -> None:
    with pytest.raises(ValueError, match=r"dim=10 is not a multiple of num_heads=4"):
        attention(dim=10, num_heads=4)
