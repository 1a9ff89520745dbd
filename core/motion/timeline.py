"""Key frames of a whole body over time, and the smooth curves through them.

A timeline holds one track per body part. A key sets every channel of its track at one moment; between keys
the curve is PCHIP (monotone cubic, C1): a part that has equal keys stands perfectly still between them, and
never overshoots, so that a planted foot is planted.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from jaxtyping import Float

# Channels per track. Metres and radians; frames as in whole_body_ik.
TRACKS: dict[str, tuple[str, ...]] = {
    "pelvis": ("x", "y", "z", "heading", "pitch", "roll"),
    "trunk": ("flexion", "bend", "twist"),
    "trunk_gesture": ("flexion", "bend", "twist"),  # what arms and gaze ask of the trunk, added to "trunk"
    "head": ("flexion", "bend", "twist"),
    "left_foot": ("x", "y", "z", "yaw", "pitch", "freedom", "splay"),
    "right_foot": ("x", "y", "z", "yaw", "pitch", "freedom", "splay"),
    "left_hand": ("outward", "up", "forward", "swivel", "upright", "pronation", "flexion", "deviation"),
    "right_hand": ("outward", "up", "forward", "swivel", "upright", "pronation", "flexion", "deviation"),
}

# Keys closer than this say the same moment; the later one counts.
_SAME_MOMENT_S = 1e-3


class Timeline:
    """Collects keys in any order and samples them at a frame rate."""

    def __init__(self) -> None:
        self._keys: dict[str, list[tuple[float, tuple[float, ...]]]] = {track: [] for track in TRACKS}

    def key(self, track: str, time_s: float, values: tuple[float, ...]) -> None:
        assert len(values) == len(TRACKS[track])
        self._keys[track].append((time_s, values))

    def sample(self, times_s: Float[np.ndarray, "frame"]) -> Mapping[str, Float[np.ndarray, "frame channel"]]:
        """Every track's channels at the given times; before the first and after the last key it rests."""
        return {track: self._sample_track(track, times_s) for track in TRACKS}

    def _sample_track(
        self, track: str, times_s: Float[np.ndarray, "frame"]
    ) -> Float[np.ndarray, "frame channel"]:
        from scipy.interpolate import PchipInterpolator  # here: scipy is slow to import

        keys = sorted(
            self._keys[track], key=lambda key: key[0]
        )  # stable: a later key of one moment stays later
        kept = [key for key, after in pairwise(keys) if after[0] - key[0] > _SAME_MOMENT_S]
        kept.append(keys[-1])
        knots = np.array([time for time, _ in kept])
        values = np.array([value for _, value in kept])
        if len(knots) == 1:
            return np.repeat(values, len(times_s), axis=0)
        curve = PchipInterpolator(knots, values, axis=0, extrapolate=False)
        return np.asarray(curve(np.clip(times_s, knots[0], knots[-1])))
