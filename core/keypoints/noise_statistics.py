"""How noisy a detector's track is, and which severity of our noise is like it.

There is no ground truth for a real track; what is compared is what jitter leaves in it by itself, against the same
of a twin: the same track smoothed, with our noise added.

Shapes: T frames of one track, or of clips (B, T) cut from one; 17 joints of `H36M_17`.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.ndimage import median_filter
from scipy.signal import savgol_coeffs, savgol_filter
from scipy.stats import spearmanr
from torch import Tensor

from core.charts import look, new_figure
from core.keypoints.detector_noise import DetectorNoise
from core.keypoints.track import Track, naming_person
from core.keypoints.windows import split_windows
from core.settings import require_number
from core.skeleton import H36M_17

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
# Frames and degree of the polynomials from which a track is said to differ.
_FAST, _SLOW = (5, 2), (13, 3)
_CONFIDENCE_BINS = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0)
_SIGMA_PER_MEDIAN = 1.4826  # of the absolute value of Gaussian numbers
_CLIP_FRAMES = 243  # at most; the noise of a clip takes T × T numbers
_SHOWN_FRAMES = 150
_SEVERITIES = (0.05, 10.0)  # that are searched
# At which noise is measured: of what is faster, every second frame or less; what is slower than the least is not
# comparable, as motion between frames looks like jitter.
_FPS, _LEAST_FPS = 30.0, 20.0


class Clips(NamedTuple):
    """Pieces of a track, of one length."""

    keypoints_px: Float[np.ndarray, "clip frame 17 2"]
    confidence: Float[np.ndarray, "clip frame 17"]


@dataclass(frozen=True, kw_only=True)
class PartJitter:
    """Of one of `PARTS`, left and right together; NaN where too little of it is seen.

    Attributes:
        fast_percent: distance from a parabola through 5 frames, as the standard deviation of white noise, in % of
            the torso. Robust: motion and outliers hardly count.
        slow_percent: the same from a cubic through 13, which lets through errors that last for some frames.
        slow_correlation: of neighbouring frames' distances from the cubic, by rank; −0.2 for white noise.
        tail: 95th percentile of the distance from the parabola over its median; 2.1 for Gaussian noise.
        confidence_median, confidence_5_percent: quantiles of the confidence where the joint is seen.
    """

    fast_percent: float
    slow_percent: float
    slow_correlation: float
    tail: float
    confidence_median: float
    confidence_5_percent: float


@dataclass(frozen=True)
class JitterStatistics:
    """Of a track or its twin.

    Attributes:
        parts: by name, all of `PARTS`.
        slow_by_confidence: `slow_percent` of all their joints in bins of their confidence.
    """

    parts: Mapping[str, PartJitter]
    slow_by_confidence: Mapping[str, float]

    @property
    def fast_percent(self) -> Float[np.ndarray, "part"]:
        return np.array([part.fast_percent for part in self.parts.values()])


@dataclass(frozen=True)
class NoiseMatch:
    """A track beside the twin that is most like it.

    Attributes:
        severity: of the noise, by which the fast residuals of both agree in the geometric mean over `PARTS`.
        track, twin: their statistics.
        track_clips: the track in pieces.
        twin_clips: the first seed's.
        torso_px: median distance of pelvis and thorax in the image.
        fps: frames per second that were compared: the track's, or of a faster one 30 or little more.
    """

    severity: float
    track: JitterStatistics
    twin: JitterStatistics
    track_clips: Clips
    twin_clips: Clips
    torso_px: float
    fps: float

    @property
    def is_too_slow(self) -> bool:
        """Whether so much motion lies between frames that the severity says little of the detector."""
        return self.fps < _LEAST_FPS


def match_noise(
    track: Track, joints_cam_m: Float[Tensor, "frame 17 3"], noise: DetectorNoise, *, num_seeds: int
) -> NoiseMatch:
    """The severity at which the noise jitters as the track does.

    Args:
        track: in any skeleton.
        joints_cam_m: in every frame from the track's first to its last, roughly. They say what is hidden behind
            what, and how large a torso is.
        noise: its severity is replaced, and nothing is lost or cropped, since real losses cannot be told from it.
        num_seeds: of the twin.

    Raises:
        ValueError: of the person whom it names no torso is seen, too few frames in a row show any of `PARTS`, or
            these jitter not at all, or less or more than the noise does at any severity.
    """
    require_number("num_seeds", num_seeds, least=1, whole=True)
    dense = track.to_skeleton(H36M_17).track.dense()
    step = max(1, round(track.fps / _FPS))
    with naming_person(track):
        return _match(
            dense.keypoints_px[::step].astype(float),
            dense.confidence[::step].astype(float),
            joints_cam_m[::step],
            noise,
            num_seeds,
            fps=track.fps / step,
        )


def _match(
    keypoints_px: Float[np.ndarray, "frame 17 2"],
    confidence: Float[np.ndarray, "frame 17"],
    joints_cam_m: Float[Tensor, "frame 17 3"],
    noise: DetectorNoise,
    num_seeds: int,
    fps: float,
) -> NoiseMatch:
    lossless: dict[str, Any] = {
        f"{loss}_rate": 0.0 for loss in ("joint_loss", "frame_loss", "absence", "crop", "threshold")
    }
    pieces = split_windows(len(keypoints_px), min(len(keypoints_px), _CLIP_FRAMES), 0)
    clips = Clips(*(np.stack([array[piece] for piece in pieces]) for array in (keypoints_px, confidence)))
    seen = clips.confidence > 0
    torso_px = _torso_px(keypoints_px, confidence)
    track = jitter_statistics(clips, seen, torso_px)
    if all(np.isnan(part.slow_percent) for part in track.parts.values()):
        raise ValueError(
            f"No limb is seen in {_SLOW[0]} frames in a row, so how noisy the track is cannot be told from it."
        )
    if not np.nanmin(track.fast_percent) > 1e-6:  # a millionth of a percent is rounding
        raise ValueError("The track does not jitter at all: it has been smoothed, or was never detected.")
    smooth_px = np.stack([smoothed(piece) for piece in clips.keypoints_px])
    joints = torch.stack([joints_cam_m[piece] for piece in pieces]).float().cpu()

    def twin_at(severity: float) -> tuple[Clips, JitterStatistics]:
        drawn = replace(noise, severity=(severity, severity), **lossless)
        seeds = []
        for seed in range(num_seeds):
            detected = drawn(torch.from_numpy(smooth_px).float(), joints, torch.Generator().manual_seed(seed))
            seeds.append(Clips(*(values.double().numpy() for values in detected)))
        all_seeds = Clips(*(np.concatenate(arrays) for arrays in zip(*seeds, strict=True)))
        return seeds[0], jitter_statistics(all_seeds, np.concatenate([seen] * num_seeds), torso_px)

    def jitters_less(severity: float) -> bool:
        with np.errstate(divide="ignore"):  # noise that has been turned off
            return bool(np.nanmean(np.log(twin_at(severity)[1].fast_percent / track.fast_percent)) < 0)

    low, high = _SEVERITIES
    for extreme, less, word in ((high, True, "more"), (low, False, "less")):
        if jitters_less(extreme) == less:
            raise ValueError(
                f"The track jitters {word} than the noise does at severity {extreme:g}, so no severity is like it."
            )
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if jitters_less(middle) else (low, middle)
    severity = (low * high) ** 0.5
    twin_clips, twin = twin_at(severity)
    return NoiseMatch(severity, track, twin, clips, twin_clips, torso_px, fps)


def noise_figure(match: NoiseMatch) -> "Figure":
    """A hip and a wrist, sideways, less the same smoothed, in % of the torso: of the track, below of its twin."""
    figure, axes = new_figure(4, num_rows=2, label="frame")
    for column, name in enumerate(("left_hip", "left_wrist")):
        joint = H36M_17.index(name)
        seen = match.track_clips.confidence[0, :_SHOWN_FRAMES, joint] > 0
        ordinary = 0.0
        for row, (whose, clips) in enumerate((("detected", match.track_clips), ("twin", match.twin_clips))):
            jitter_px = clips.keypoints_px[0] - smoothed(clips.keypoints_px[0])
            percent = np.where(seen, 100 / match.torso_px * jitter_px[:_SHOWN_FRAMES, joint, 0], np.nan)
            axis = axes[2 * row + column]
            axis.plot(percent, linewidth=1.0, **look(row))
            axis.set_title(f"{name.replace('_', ' ')}, {whose}, % of torso", loc="left", fontsize=10)
            if seen.any():
                ordinary = max(ordinary, float(np.nanquantile(np.abs(percent), 0.9)))
        for axis in axes[column::2]:  # outliers need not be seen to their top
            axis.set_ylim(-4 * ordinary - 0.01, 4 * ordinary + 0.01)
    return figure


def jitter_statistics(
    clips: Clips, seen: Bool[np.ndarray, "clip frame 17"], torso_px: float
) -> JitterStatistics:
    """Of what is seen: a residual counts where the joint is seen in all frames that the polynomial is fitted to."""
    fast, slow = (100 / torso_px * polynomial_residual(clips.keypoints_px, *kind) for kind in (_FAST, _SLOW))
    in_fast, in_slow = (_seen_around(seen, num_frames) for num_frames, _ in (_FAST, _SLOW))
    parts = {}
    for part in PARTS:
        joints = [H36M_17.index(f"{side}_{part}") for side in ("left", "right")]
        fast_here = fast[:, :, joints][in_fast[:, :, joints]]
        distance = np.linalg.norm(fast_here, axis=-1)
        in_both = in_slow[:, 1:, joints] & in_slow[:, :-1, joints]
        confidence = clips.confidence[:, :, joints][seen[:, :, joints]]
        parts[part] = PartJitter(
            fast_percent=_robust_std(fast_here),
            slow_percent=_robust_std(slow[:, :, joints][in_slow[:, :, joints]]),
            slow_correlation=_rank_correlation(
                slow[:, :-1, joints][in_both].ravel(), slow[:, 1:, joints][in_both].ravel()
            ),
            tail=_quantile(distance, 0.95) / (_quantile(distance, 0.5) or np.nan),
            confidence_median=_quantile(confidence, 0.5),
            confidence_5_percent=_quantile(confidence, 0.05),
        )
    limbs = [H36M_17.index(f"{side}_{part}") for part in PARTS for side in ("left", "right")]
    confidence, residual = clips.confidence[:, :, limbs], slow[:, :, limbs]
    by_confidence = {}
    for least, most in itertools.pairwise(_CONFIDENCE_BINS):
        within = in_slow[:, :, limbs] & (confidence > least) & (confidence <= most)
        by_confidence[f"{least:g} to {most:g}"] = _robust_std(residual[within])
    return JitterStatistics(parts, by_confidence)


def polynomial_residual(
    keypoints_px: Float[np.ndarray, "clip frame 17 2"], num_frames: int, degree: int
) -> Float[np.ndarray, "clip frame 17 2"]:
    """How far every point is from the polynomial through the frames around it (Savitzky and Golay 1964), scaled so
    that white noise keeps its standard deviation. Nearer to an end than half of them, it says nothing."""
    if keypoints_px.shape[1] < num_frames:
        return np.zeros_like(keypoints_px)
    own_weight = savgol_coeffs(num_frames, degree)[num_frames // 2]
    fitted = savgol_filter(keypoints_px, num_frames, degree, axis=1)
    return (keypoints_px - fitted) / np.sqrt(1 - own_weight)


def smoothed(keypoints_px: Float[np.ndarray, "frame 17 2"]) -> Float[np.ndarray, "frame 17 2"]:
    """A track without its jitter: the median of 7 frames, then a cubic through 13."""
    calm = median_filter(keypoints_px, size=(7, 1, 1), mode="nearest")
    num_frames, degree = _SLOW
    return savgol_filter(calm, num_frames, degree, axis=0) if len(calm) >= num_frames else calm


def _torso_px(
    keypoints_px: Float[np.ndarray, "frame 17 2"], confidence: Float[np.ndarray, "frame 17"]
) -> float:
    pelvis, thorax = (H36M_17.index(name) for name in ("pelvis", "thorax"))
    seen = (confidence[:, pelvis] > 0) & (confidence[:, thorax] > 0)
    lengths = np.linalg.norm(keypoints_px[seen, thorax] - keypoints_px[seen, pelvis], axis=-1)
    if not seen.any() or not np.median(lengths) > 0:
        raise ValueError(
            "In no frame are hips and shoulders seen, whose distance is what noise is measured by."
        )
    return float(np.median(lengths))


def _seen_around(
    seen: Bool[np.ndarray, "clip frame 17"], num_frames: int
) -> Bool[np.ndarray, "clip frame 17"]:
    """Whether a joint is seen in all of so many frames around each; nowhere near the ends."""
    around = np.zeros(seen.shape, bool)
    if seen.shape[1] >= num_frames:
        half = num_frames // 2
        windows = np.lib.stride_tricks.sliding_window_view(seen, num_frames, axis=1)
        around[:, half : seen.shape[1] - half] = windows.all(axis=-1)
    return around


def _robust_std(values: Float[np.ndarray, "..."]) -> float:
    return _SIGMA_PER_MEDIAN * _quantile(np.abs(values), 0.5)


def _quantile(values: Float[np.ndarray, "..."], share: float) -> float:
    return float(np.quantile(values, share)) if values.size else np.nan


def _rank_correlation(before: Float[np.ndarray, "pair"], after: Float[np.ndarray, "pair"]) -> float:
    """Spearman's, which outliers do not sway."""
    return float(spearmanr(before, after).statistic) if len(before) > 2 else np.nan
