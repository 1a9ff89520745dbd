"""Long sequences in windows of a network's clip length, and the windows' results blended back into one.

Shapes: window W, frame T.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from core.rotations import nearest_rotation


def split_windows(num_frames: int, window: int, overlap: int) -> list[slice]:
    """Slices that cover all frames, each `window` long and sharing at least `overlap` frames with the next.

    The last is moved back to end with the sequence. A sequence shorter than the window gives one slice of its
    own length.

    Raises:
        ValueError: If there is no frame, or 0 ≤ overlap < window does not hold.
    """
    if num_frames < 1:
        raise ValueError(f"A sequence of {num_frames} frames cannot be split into windows.")
    if not 0 <= overlap < window:
        raise ValueError(
            f"An overlap of {overlap} frames does not fit a window of {window}: 0 ≤ overlap < window."
        )
    if num_frames <= window:
        return [slice(0, num_frames)]
    starts = [*range(0, num_frames - window, window - overlap), num_frames - window]
    return [slice(start, start + window) for start in starts]


def blend_weights(windows: list[slice], num_frames: int) -> list[Float[Tensor, "_"]]:
    """A Hann weight for every frame of every window; over the windows of a frame they sum to 1 (float64).

    Each window's say fades out towards its ends, where it lacks context. At the ends of the sequence, where
    there is no other window, the weight is 1.
    """
    hann = [
        torch.hann_window(w.stop - w.start + 2, periodic=False, dtype=torch.float64)[1:-1] for w in windows
    ]
    total = torch.zeros(num_frames, dtype=torch.float64)
    for window, weight in zip(windows, hann, strict=True):
        total[window] += weight
    if not bool((total > 0).all()):
        raise ValueError("The windows do not cover every frame of the sequence.")
    return [weight / total[window] for window, weight in zip(windows, hann, strict=True)]


def blend_windows(values: list[Tensor], windows: list[slice], num_frames: int) -> Tensor:
    """One sequence (num_frames, *rest) from each window's values (T_window, *rest), in a vector space.

    Rotations go through `blend_rotation_windows`.
    """
    if len(values) != len(windows):
        raise ValueError(f"{len(values)} windows of values do not match {len(windows)} windows.")
    blended = torch.zeros(num_frames, *values[0].shape[1:], dtype=values[0].dtype, device=values[0].device)
    for window, value, weight in zip(windows, values, blend_weights(windows, num_frames), strict=True):
        blended[window] += weight.to(value).reshape(-1, *[1] * (value.ndim - 1)) * value
    return blended


def blend_rotation_windows(
    rotmats: list[Float[Tensor, "_ *rest 3 3"]], windows: list[slice], num_frames: int
) -> Float[Tensor, "frame *rest 3 3"]:
    """`blend_windows` for rotation matrices: the rotation nearest to their weighted mean (chordal mean)."""
    return nearest_rotation(blend_windows(rotmats, windows, num_frames))
