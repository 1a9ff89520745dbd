"""A residual MLP that treats left and right alike, at half the cost of one that has to learn to.

A person seen in a mirror is another person: left and right joints exchanged, x negated. Numbers are kept as a
symmetric part, which a mirror leaves as it is, and an antisymmetric part, which it negates. A linear map that
commutes with the mirror never mixes the two, so its matrix falls into two blocks of half the size; functions of
single numbers act on both views, s + a as seen and s - a as seen in the mirror. Group-equivariant layers (Cohen
and Welling, "Group Equivariant Convolutional Networks", ICML 2016) for the group of two elements; for poses
after Yeh et al., "Chirality Nets for Human Pose Regression", NeurIPS 2019.

Shapes: D numbers, the first D / 2 of them symmetric.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.linear import Linear, without_autocast


class MirrorLinear(nn.Module):
    """A linear map for each part; a bias for the symmetric one alone, since a mirror would negate the other's."""

    def __init__(
        self, in_symmetric: int, in_antisymmetric: int, out_symmetric: int, out_antisymmetric: int
    ) -> None:
        super().__init__()
        self.in_symmetric = in_symmetric
        self.symmetric = Linear(in_symmetric, out_symmetric)
        self.antisymmetric = Linear(in_antisymmetric, out_antisymmetric, bias=False)

    def forward(self, x: Float[Tensor, "*batch in_numbers"]) -> tuple[Tensor, Tensor]:
        """Both parts, (..., out_symmetric) and (..., out_antisymmetric)."""
        return (
            self.symmetric(x[..., : self.in_symmetric]),
            self.antisymmetric(x[..., self.in_symmetric :]),
        )


class MirrorResidualBlock(nn.Module):
    """x + W₂ GELU(W₁ RMSNorm(x)), the identity at first; RMSNorm, because a mean would mix both parts."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        half = dim // 2
        self.norm = nn.RMSNorm(dim)
        self.inner = MirrorLinear(half, half, half, half)
        self.out = MirrorLinear(half, half, half, half)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        """One residual step."""
        symmetric, antisymmetric = self.inner(self.norm(x))
        seen, mirrored = F.gelu(symmetric + antisymmetric), F.gelu(symmetric - antisymmetric)
        hidden = torch.cat((seen + mirrored, seen - mirrored), -1) / 2
        return x + torch.cat(self.out(hidden), -1)


class MirrorMlp(nn.Module):
    """Windows of W frames of keypoints to numbers of each frame.

    Args:
        mirror_permutation: of the joints (`core.skeleton.Skeleton.mirror_permutation`).
        in_channels: numbers per joint; the first is x, which a mirror negates.
        num_frames: W.
        dim: width of the residual trunk, even.
        num_blocks: residual blocks.
        dim_out: numbers per frame that come out, even: first the symmetric half, then the antisymmetric one.
    """

    basis: Tensor

    def __init__(
        self,
        *,
        mirror_permutation: Sequence[int],
        in_channels: int,
        num_frames: int,
        dim: int,
        num_blocks: int,
        dim_out: int,
    ) -> None:
        super().__init__()
        if dim % 2 or dim_out % 2:
            raise ValueError(f"A mirror MLP needs even widths, not {dim} and {dim_out}.")
        self.num_frames = num_frames
        symmetric, antisymmetric = symmetric_and_antisymmetric_basis(mirror_permutation, in_channels)
        self.num_symmetric = symmetric.shape[1]
        self.register_buffer("basis", torch.cat((symmetric, antisymmetric), 1), persistent=False)
        per_part = num_frames * symmetric.shape[1], num_frames * antisymmetric.shape[1]
        self.window = MirrorLinear(*per_part, dim // 2, dim // 2)
        self.blocks = nn.Sequential(*(MirrorResidualBlock(dim) for _ in range(num_blocks)))
        self.norm = nn.RMSNorm(dim)
        out_per_part = num_frames * dim_out // 2
        self.to_frames = MirrorLinear(dim // 2, dim // 2, out_per_part, out_per_part)
        for part in (self.to_frames.symmetric, self.to_frames.antisymmetric):
            nn.init.orthogonal_(part.weight)

    def forward(
        self, windows: Float[Tensor, "*batch window_frame number"]
    ) -> Float[Tensor, "*batch window_frame dim_out"]:
        """What the window says of each of its frames."""
        with without_autocast(windows):
            parts = (windows @ self.basis).split(
                [self.num_symmetric, self.basis.shape[1] - self.num_symmetric], -1
            )
            x = torch.cat(self.window(torch.cat([part.flatten(-2) for part in parts], -1)), -1)
        out = self.to_frames(self.norm(self.blocks(x)))
        return torch.cat([part.unflatten(-1, (self.num_frames, -1)) for part in out], -1)


def symmetric_and_antisymmetric_basis(
    mirror_permutation: Sequence[int], in_channels: int
) -> tuple[Float[Tensor, "number symmetric"], Float[Tensor, "number antisymmetric"]]:
    """Orthonormal bases of what a mirror leaves, and of what it negates, in a frame's J · K numbers."""
    num_numbers = len(mirror_permutation) * in_channels
    vectors: dict[float, list[list[float]]] = {1.0: [], -1.0: []}  # by what a mirror multiplies them with
    for joint, mirrored_joint in enumerate(mirror_permutation):
        for channel in range(in_channels):
            own_sign = -1.0 if channel == 0 else 1.0
            here, there = joint * in_channels + channel, mirrored_joint * in_channels + channel
            if here == there:
                vectors[own_sign].append([float(number == here) for number in range(num_numbers)])
            elif here < there:
                for sign, part in vectors.items():
                    entries = {here: 0.5**0.5, there: sign * own_sign * 0.5**0.5}
                    part.append([entries.get(number, 0.0) for number in range(num_numbers)])
    return torch.tensor(vectors[1.0]).T, torch.tensor(vectors[-1.0]).T
