"""Keypoints at the frame rate that a model knows, and what it makes of them back at the video's.

How fast keypoints move tells a model with a view of time how a body moves.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Between these factors from the model's frame rate to a video's, it is best shown the frames as they are: it reads
# motion at half its rate better than straight lines between frames (measured, docs/keypoints.md).
_LEAST_FACTOR = 0.3
_LARGEST_FACTOR = 1.35


@dataclass(frozen=True)
class Between:
    """Places on a grid of frames: on the straight line from one frame to another, this share of the way."""

    before: Int[Tensor, "place"]
    after: Int[Tensor, "place"]
    share: Float[Tensor, "place"]


@dataclass(frozen=True)
class OtherRate:
    """Keypoints between a video's frames, and where the video's frames lie between those."""

    keypoints_px: Float[Tensor, "sample joint 2"]
    confidence: Float[Tensor, "sample joint"]
    back: Between


def at_other_rate(
    keypoints_px: Float[Tensor, "frame joint 2"],
    confidence: Float[Tensor, "frame joint"],
    rate_factor: float,
) -> OtherRate | None:
    """Keypoints as a video of a `rate_factor`-th of the frames a second has them, on straight lines.

    Joints between two frames are as sure as in the less sure one. None: frames do as they are.
    """
    if _LEAST_FACTOR <= rate_factor <= _LARGEST_FACTOR:
        return None
    num_frames = len(keypoints_px)
    count = math.ceil((num_frames - 1) / rate_factor) + 1
    frames = torch.arange(num_frames, dtype=keypoints_px.dtype, device=keypoints_px.device)
    sampled = (rate_factor * torch.arange(count).to(frames)).clamp(max=num_frames - 1)
    there = _between(frames, sampled)
    return OtherRate(
        torch.lerp(keypoints_px[there.before], keypoints_px[there.after], there.share[:, None, None]),
        torch.where(
            there.share[:, None] > 0,
            confidence[there.before].minimum(confidence[there.after]),
            confidence[there.before],
        ),
        _between(sampled, frames),
    )


def _between(grid: Float[Tensor, "known"], wanted: Float[Tensor, "wanted"]) -> Between:
    """In an increasing grid, before and after what is wanted, and how far it is towards the latter."""
    after = torch.searchsorted(grid, wanted).clamp(max=len(grid) - 1)
    before = torch.where(grid[after] > wanted, after - 1, after)
    share = (wanted - grid[before]) / (grid[after] - grid[before]).clamp(min=1e-6)
    return Between(before, after, share)
