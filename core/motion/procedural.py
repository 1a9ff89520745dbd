"""Motion from a seed: people who walk, run, sit, squat, jump, reach, wave and stand around.

Made without any recording. A performer writes key frames for pelvis, feet, hands, trunk and gaze; smooth
curves through them are solved for joint rotations by whole-body inverse kinematics, kept inside the joints'
limits, and set on the floor of the nominal skeleton.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from core.motion import gaits, stances
from core.motion.gestures import write_gaze, write_gestures
from core.motion.joint_limits import clamp_to_joint_limits
from core.motion.performer import Performer, random_posture
from core.motion.sequence import MotionSequence
from core.motion.timeline import TRACKS
from core.motion.whole_body_ik import (
    LEG_LENGTH_M,
    FootTarget,
    HandTarget,
    TrunkAngles,
    WholeBodyTarget,
    ankle_position,
    hip_position,
    pelvis_rotation,
    sole_heights,
    solve_whole_body,
)

# Sequences solved together: enough for numpy to be efficient, few enough to stay in the cache.
_BLOCK = 16
_CURVE_SMOOTHING_S = 0.045
_POSE_SMOOTHING_S = 0.035
_BRISK_RAD_PER_S = 15.0


class _Activity(NamedTuple):
    write: Callable[[Performer, float], None]
    weight: float  # how often it is drawn
    duration_s: tuple[float, float]
    gestures: tuple[str, ...]  # repeated names are drawn more often


ACTIVITIES: dict[str, _Activity] = {
    "idle": _Activity(
        stances.idle,
        6.0,
        (4.0, 12.0),
        ("hang", "rest", "rest"),
    ),
    "stand": _Activity(
        stances.idle,
        4.0,
        (3.0, 9.0),
        ("rest", "gesture", "gesture", "reach", "reach", "wave", "arms up", "roam", "cyclic"),
    ),
    "walk": _Activity(
        gaits.walk,
        4.0,
        (3.0, 7.0),
        (
            "swing",
            "swing",
            "swing",
            "swing",
            "swing",
            "swing",
            "swing",
            "rest",
            "gesture",
            "roam",
            "reach",
            "wave",
            "cyclic",
        ),
    ),
    "run": _Activity(gaits.run, 1.2, (2.5, 5.0), ("swing", "swing", "swing", "roam", "cyclic")),
    "turn": _Activity(gaits.turn, 1.0, (1.0, 3.0), ("swing", "hang", "roam", "gesture", "arms up")),
    "side step": _Activity(gaits.side_step, 1.2, (2.0, 4.0), ("roam", "cyclic", "rest", "gesture")),
    "dance": _Activity(
        gaits.dance, 3.5, (3.0, 7.0), ("roam", "roam", "gesture", "gesture", "swing", "arms up")
    ),
    "climb": _Activity(gaits.climb, 0.8, (4.0, 7.0), ("reach", "roam", "cyclic", "swing", "rest")),
    "squat": _Activity(stances.squat, 0.7, (2.0, 5.0), ("roam", "hang", "arms up", "reach", "rest")),
    "sit": _Activity(
        stances.sit, 1.8, (3.0, 9.0), ("seated", "seated", "rest", "gesture", "reach", "cyclic")
    ),
    "jump": _Activity(stances.jump, 1.2, (2.0, 4.0), ("arms up", "roam", "hang", "cyclic")),
    "kick": _Activity(stances.kick, 1.0, (2.0, 4.0), ("roam", "hang", "gesture")),
    "lunge": _Activity(stances.lunge, 0.7, (2.0, 4.0), ("roam", "rest", "reach", "arms up", "cyclic")),
    "bend": _Activity(stances.bend, 1.2, (2.0, 4.0), ("hang", "reach", "roam", "rest", "cyclic")),
    "key poses": _Activity(stances.key_poses, 2.0, (4.0, 8.0), ("roam", "roam", "arms up", "reach")),
}


@dataclass(frozen=True)
class _Performance:
    """One sequence before inverse kinematics."""

    tracks: Mapping[str, Float[np.ndarray, "frame channel"]]
    spine_shares: Float[np.ndarray, "3"]
    betas: Float[np.ndarray, "10"]
    label: str


def procedural_motion(
    *,
    num_sequences: int,
    num_frames: int,
    fps: float,
    seed: int,
    activities: Sequence[str] | None = None,
) -> list[MotionSequence]:
    """Make motion sequences; the same arguments give the same motion, bit for bit on one machine.

    Sequence i depends on the seed and on i alone, so a longer list begins with the shorter one. Each label
    names what is seen, first of the legs, then of the arms: "walk, sit | swing, seated". `activities` draws
    only from these keys of `ACTIVITIES` (None: from all, by their weights).

    The translation is the pelvis of a body whose rest pelvis is the origin, as the open body's is.

    Raises:
        ValueError: a count or the rate is not positive, or an activity is unknown.
    """
    if num_sequences < 1 or num_frames < 1 or not (np.isfinite(fps) and fps > 0):
        raise ValueError(
            "Procedural motion needs at least one sequence, one frame and a positive rate, not "
            f"{num_sequences} sequences of {num_frames} frames at {fps} fps; raise the one that is too small."
        )
    names = tuple(ACTIVITIES if activities is None else activities)
    unknown = [name for name in names if name not in ACTIVITIES]
    if unknown or not names:
        raise ValueError(
            f"Procedural motion knows no activity {', '.join(map(repr, unknown)) or '(none given)'}; "
            f"choose from {', '.join(ACTIVITIES)}."
        )
    sequences: list[MotionSequence] = []
    for start in range(0, num_sequences, _BLOCK):
        indices = range(start, min(start + _BLOCK, num_sequences))
        performances = [
            _perform(np.random.default_rng((seed, index)), names, num_frames, fps) for index in indices
        ]
        poses, pelvis = _solve(performances, fps)
        for number, (index, performance) in enumerate(zip(indices, performances, strict=True)):
            sequences.append(
                MotionSequence(
                    poses_rotvec=poses[number].astype(np.float32),
                    translation_world_m=pelvis[number].astype(np.float32),
                    betas=performance.betas.astype(np.float32),
                    gender="neutral",
                    fps=float(fps),
                    name=f"procedural_{seed}_{index:05d}",
                    subject=f"procedural_{seed}_{index:05d}",
                    label=performance.label,
                )
            )
    return sequences


def _perform(rng: np.random.Generator, names: tuple[str, ...], num_frames: int, fps: float) -> _Performance:
    performer = Performer(rng=rng, posture=random_posture(rng), heading=float(rng.uniform(-np.pi, np.pi)))
    # The window opens somewhere in the performance, so that sequences also start in the middle of things.
    opening_s = float(rng.uniform(0.5, 6.0))
    closing_s = opening_s + num_frames / fps
    weights = np.array([ACTIVITIES[name].weight for name in names])
    # Most people keep to a few activities; this sequence's share of each is drawn once.
    weights = weights * rng.gamma(0.6, 1.0, len(names)) + 1e-6
    weights /= weights.sum()

    spans: list[tuple[str, float, float]] = []
    while performer.time_s < closing_s:
        name = names[int(rng.choice(len(names), p=weights))]
        activity, start_s = ACTIVITIES[name], performer.time_s
        activity.write(performer, performer.uniform(*activity.duration_s))
        spans.append((name, start_s, performer.time_s))

    performer.timeline.key("trunk_gesture", 0.0, (0.0, 0.0, 0.0))
    seen_legs: list[str] = []
    seen_arms: list[str] = []
    for name, start_s, end_s in spans:
        arms = write_gestures(performer, start_s, end_s, ACTIVITIES[name].gestures)
        if end_s > opening_s and start_s < closing_s:
            seen_legs.append(name)
            seen_arms.extend(arms)
    write_gaze(performer, 0.0, closing_s)

    times_s = opening_s + np.arange(num_frames) / fps
    tracks = performer.timeline.sample(times_s)
    label = f"{', '.join(dict.fromkeys(seen_legs))} | {', '.join(dict.fromkeys(seen_arms))}"
    return _Performance(
        tracks=_with_sway(tracks, rng, fps),
        spine_shares=rng.dirichlet((8.0, 8.0, 5.0)),
        betas=np.clip(rng.normal(size=10), -2.5, 2.5),
        label=label,
    )


# Nobody holds still: standard deviation of a slow wandering of each channel (m, rad). Feet stay planted.
_SWAY: dict[str, tuple[float, ...]] = {
    "pelvis": (0.006, 0.006, 0.0, 0.02, 0.012, 0.008),
    "trunk": (0.02, 0.012, 0.02),
    "head": (0.03, 0.02, 0.04),
    "left_hand": (0.014, 0.01, 0.014, 0.06, 0.0, 0.1, 0.07, 0.03),
    "right_hand": (0.014, 0.01, 0.014, 0.06, 0.0, 0.1, 0.07, 0.03),
}


def _with_sway(
    tracks: Mapping[str, Float[np.ndarray, "frame channel"]], rng: np.random.Generator, fps: float
) -> Mapping[str, Float[np.ndarray, "frame channel"]]:
    strength = rng.uniform(0.1, 1.5)
    swayed = dict(tracks)
    for track, deviation in _SWAY.items():
        swayed[track] = tracks[track] + strength * np.array(deviation) * _wandering(
            rng, tracks[track].shape, 0.35 * fps
        )
    return swayed


def _wandering(
    rng: np.random.Generator, shape: tuple[int, int], frames: float
) -> Float[np.ndarray, "frame channel"]:
    """Smooth noise of unit deviation and a correlation time of about `frames`."""
    margin = int(np.ceil(4 * frames))
    noise = rng.normal(size=(shape[0] + 2 * margin, shape[1]))
    # A Gaussian kernel of this width leaves white noise with a variance of 1 / (2 sqrt(pi) width).
    return _smoothed(noise, frames)[margin : margin + shape[0]] * np.sqrt(2 * np.sqrt(np.pi) * frames)


def _solve(
    performances: list[_Performance], fps: float
) -> tuple[Float[np.ndarray, "sequence frame 24 3"], Float[np.ndarray, "sequence frame 3"]]:
    from scipy.spatial.transform import Rotation  # here: scipy is slow to import

    tracks = {
        track: _smoothed(
            np.stack([each.tracks[track] for each in performances]), _CURVE_SMOOTHING_S * fps, axis=1
        )
        for track in TRACKS
    }
    target = _lowered_to_reach(_whole_body_target(tracks), fps)
    shares = np.stack([each.spine_shares for each in performances])[:, None]
    rotmat = solve_whole_body(target, np.broadcast_to(shares, (*target.heading.shape, 3)))

    body = (
        Rotation.from_matrix(rotmat[:, :, 1:].reshape(-1, 3, 3)).as_quat().reshape(*rotmat.shape[:2], 23, 4)
    )
    body = _calmed(_smoothed(_continuous(body), _POSE_SMOOTHING_S * fps, axis=1), fps)
    poses = np.concatenate(
        [
            Rotation.from_matrix(rotmat[:, :, :1].reshape(-1, 3, 3))
            .as_rotvec()
            .reshape(*rotmat.shape[:2], 1, 3),
            Rotation.from_quat(body.reshape(-1, 4)).as_rotvec().reshape(*rotmat.shape[:2], 23, 3),
        ],
        axis=2,
    )
    poses = clamp_to_joint_limits(poses)
    rotmat = Rotation.from_rotvec(poses.reshape(-1, 3)).as_matrix().reshape(rotmat.shape)
    return poses, _set_on_floor(rotmat, target, fps)


def _whole_body_target(tracks: Mapping[str, Float[np.ndarray, "*batch channel"]]) -> WholeBodyTarget:
    pelvis = tracks["pelvis"]
    feet, hands = [], []
    for side in ("left", "right"):
        foot, hand = tracks[f"{side}_foot"], tracks[f"{side}_hand"]
        feet.append(FootTarget(foot[..., :3], *_channels(foot[..., 3:])))
        hands.append(HandTarget(hand[..., :3], *_channels(hand[..., 3:])))
    return WholeBodyTarget(
        pelvis_m=pelvis[..., :3],
        heading=pelvis[..., 3],
        pelvis_pitch=pelvis[..., 4],
        pelvis_roll=pelvis[..., 5],
        trunk=TrunkAngles(*_channels(tracks["trunk"] + tracks["trunk_gesture"])),
        head=TrunkAngles(*_channels(tracks["head"])),
        left_foot=feet[0],
        right_foot=feet[1],
        left_hand=hands[0],
        right_hand=hands[1],
    )


def _lowered_to_reach(target: WholeBodyTarget, fps: float) -> WholeBodyTarget:
    """The pelvis lowered where the legs would otherwise be too short for the planted feet."""
    rotation = pelvis_rotation(target)
    excess = np.zeros(target.heading.shape)
    for outward, foot in ((1.0, target.left_foot), (-1.0, target.right_foot)):
        to_hip = hip_position(target.pelvis_m, rotation, outward) - ankle_position(foot, outward)
        level = np.linalg.norm(to_hip[..., :2], axis=-1)
        longest = 0.999 * LEG_LENGTH_M
        highest = np.sqrt(np.maximum(longest**2 - level**2, (0.3 * longest) ** 2))
        # A foot that hangs from its leg need not reach its target.
        excess = np.maximum(excess, to_hip[..., 2] - highest - 0.5 * np.clip(foot.freedom, 0, 1))
    lowered = target.pelvis_m.copy()
    lowered[..., 2] -= _smooth_envelope(excess, 0.05 * fps)
    return target._replace(pelvis_m=lowered)


def _set_on_floor(
    rotmat: Float[np.ndarray, "sequence frame 24 3 3"], target: WholeBodyTarget, fps: float
) -> Float[np.ndarray, "sequence frame 3"]:
    """Pelvis positions with the lower sole where the lower foot was meant to be.

    Joint limits and the reach of the legs may have moved it; the correction is smoothed in time.
    """
    pelvis = target.pelvis_m.copy()
    feet = (target.left_foot, target.right_foot)
    meant = np.stack([foot.position_m[..., 2] for foot in feet], axis=-1)
    freedom = np.stack([np.clip(foot.freedom, 0, 1) for foot in feet], axis=-1)
    lowest = np.min(sole_heights(rotmat, pelvis), axis=-1)
    floating = np.where(np.min(freedom, axis=-1) < 0.05, np.maximum(lowest - np.min(meant, axis=-1), 0), 0)
    lowering = _smoothed(floating, 0.06 * fps, axis=1)
    sunk = np.maximum(np.min(meant, axis=-1) - (lowest - lowering), 0)
    pelvis[..., 2] += _smooth_envelope(sunk, 0.05 * fps) - lowering
    return pelvis


def _calmed(
    quat: Float[np.ndarray, "sequence frame joint 4"], fps: float
) -> Float[np.ndarray, "sequence frame joint 4"]:
    """Smoothed more strongly around moments in which a joint would turn faster than people do.

    Hands that pass close by their shoulder ask for that, whatever the path.
    """
    quat = quat / np.linalg.norm(quat, axis=-1, keepdims=True)
    step = 2 * np.arccos(np.clip(np.sum(quat[:, 1:] * quat[:, :-1], axis=-1), -1, 1)) * fps
    step = np.pad(step, ((0, 0), (1, 0), (0, 0)), mode="constant")
    too_fast = np.clip((step - _BRISK_RAD_PER_S) / (0.5 * _BRISK_RAD_PER_S), 0, 1)
    share = _smooth_envelope(too_fast, 0.08 * fps)[..., None]
    if not share.any():
        return quat
    return (1 - share) * quat + share * _smoothed(quat, 0.11 * fps, axis=1)


def _continuous(
    quat: Float[np.ndarray, "sequence frame joint 4"],
) -> Float[np.ndarray, "sequence frame joint 4"]:
    """The same rotations with signs chosen so that neighbouring frames lie on one side."""
    flips = np.sum(quat[:, 1:] * quat[:, :-1], axis=-1) < 0
    sign = np.where(np.cumsum(flips, axis=1) % 2 == 1, -1.0, 1.0)
    continuous = quat.copy()
    continuous[:, 1:] *= sign[..., None]
    return continuous


def _smooth_envelope(
    values: Float[np.ndarray, "sequence frame *rest"], frames: float
) -> Float[np.ndarray, "sequence frame *rest"]:
    """A smooth curve that stays on or above non-negative `values`, near enough."""
    from scipy.ndimage import maximum_filter1d

    width = 2 * int(np.ceil(2 * frames)) + 1
    return _smoothed(maximum_filter1d(values, width, axis=1, mode="nearest"), frames, axis=1)


def _smoothed(values: np.ndarray, frames: float, axis: int = 0) -> np.ndarray:
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(values, frames, axis=axis, mode="nearest"))


def _channels(values: Float[np.ndarray, "*batch channel"]) -> Iterator[Float[np.ndarray, "*batch"]]:
    return iter(np.moveaxis(values, -1, 0))
