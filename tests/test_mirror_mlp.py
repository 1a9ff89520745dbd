"""Layers that commute with a mirror, against the full matrices that they stand for."""

import pytest
import torch
from torch import Tensor

from core.mirror_mlp import MirrorMlp, MirrorResidualBlock, symmetric_and_antisymmetric_basis
from core.skeleton import H36M_17, SKELETONS


def mirrored(keypoints: Tensor, skeleton: str = "h36m_17") -> Tensor:
    """(..., J, 3) seen in a mirror."""
    swapped = keypoints[..., list(SKELETONS[skeleton].mirror_permutation), :]
    return swapped * swapped.new_tensor([-1, 1, 1])


def mirror_mlp(**changes: int) -> MirrorMlp:
    sizes = {"in_channels": 3, "num_frames": 5, "dim": 32, "num_blocks": 2, "dim_out": 12} | changes
    torch.manual_seed(0)
    model = MirrorMlp(mirror_permutation=H36M_17.mirror_permutation, **sizes).double()
    for parameter in model.parameters():  # the blocks would be the identity
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("skeleton", ["h36m_17", "coco_17", "halpe_26"])
def test_the_bases_are_what_a_mirror_leaves_and_negates(skeleton: str) -> None:
    num_joints = SKELETONS[skeleton].num_joints
    symmetric, antisymmetric = symmetric_and_antisymmetric_basis(SKELETONS[skeleton].mirror_permutation, 3)
    basis = torch.cat((symmetric, antisymmetric), 1)
    torch.testing.assert_close(basis.T @ basis, torch.eye(3 * num_joints))
    for part, sign in ((symmetric, 1), (antisymmetric, -1)):
        seen_in_mirror = mirrored(part.T.unflatten(1, (num_joints, 3)), skeleton).flatten(1).T
        torch.testing.assert_close(seen_in_mirror, sign * part)


@torch.no_grad()
def test_a_mirrored_person_negates_the_antisymmetric_half_and_no_more() -> None:
    model = mirror_mlp()
    keypoints = torch.randn(4, 5, 17, 3, dtype=torch.float64)
    symmetric, antisymmetric = model(keypoints.flatten(2)).chunk(2, -1)
    assert antisymmetric.abs().mean() > 0.1
    expected = torch.cat((symmetric, -antisymmetric), -1)
    torch.testing.assert_close(model(mirrored(keypoints).flatten(2)), expected, atol=1e-12, rtol=0)


@torch.no_grad()
def test_a_block_equals_a_full_matrix_on_both_views() -> None:
    torch.manual_seed(0)
    block = MirrorResidualBlock(8).double()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(3, 8, dtype=torch.float64)

    def on_views(linear: torch.nn.Module, seen: Tensor, in_mirror: Tensor) -> tuple[Tensor, Tensor]:
        """[seen; in mirror] through [[A, B], [B, A]], whose eigenblocks are A + B and A - B."""
        a, b = (
            (linear.symmetric.weight + linear.antisymmetric.weight) / 2,
            (linear.symmetric.weight - linear.antisymmetric.weight) / 2,
        )
        full = torch.cat((torch.cat((a, b), 1), torch.cat((b, a), 1)), 0)
        out = torch.cat((seen, in_mirror), -1) @ full.T + linear.symmetric.bias.repeat(2)
        return out.chunk(2, -1)

    normed = x / (x.square().mean(-1, keepdim=True) + torch.finfo(x.dtype).eps).sqrt() * block.norm.weight
    symmetric, antisymmetric = normed.chunk(2, -1)
    seen, in_mirror = on_views(block.inner, symmetric + antisymmetric, symmetric - antisymmetric)
    gelu = torch.nn.functional.gelu
    seen, in_mirror = on_views(block.out, gelu(seen), gelu(in_mirror))
    wanted = x + torch.cat((seen + in_mirror, seen - in_mirror), -1) / 2
    torch.testing.assert_close(block(x), wanted, atol=1e-12, rtol=0)


def test_gradients_are_finite_and_reach_every_weight() -> None:
    model = mirror_mlp()
    model(torch.zeros(2, 5, 51, dtype=torch.float64).requires_grad_()).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    model.zero_grad()
    model(torch.randn(2, 5, 51, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in model.parameters())


def test_odd_widths_are_named() -> None:
    with pytest.raises(ValueError, match="even widths, not 31 and 12"):
        mirror_mlp(dim=31)
