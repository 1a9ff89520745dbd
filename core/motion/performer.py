"""The state of one performed sequence: where the person stands, and how keys are written from there."""

import math
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from core.motion.timeline import Timeline
from core.motion.whole_body_ik import STANDING_PELVIS_HEIGHT_M

Side = Literal["left", "right"]
SIDES: tuple[Side, Side] = ("left", "right")
OUTWARD: dict[Side, float] = {"left": 1.0, "right": -1.0}

# The pelvis of a standing person is this far in front of the ankles, so that the weight is over the feet.
PELVIS_AHEAD_OF_ANKLES_M = 0.065


class Beat(NamedTuple):
    """A footfall, to which arms may swing."""

    time_s: float
    side: Side  # of the leg that is now in front
    amplitude: float  # 1: a brisk walk


@dataclass
class Footing:
    """Where a foot stands: the point under its ankle."""

    x: float
    y: float
    z: float
    yaw: float

    def towards(self, other: "Footing", share: float) -> "Footing":
        """The point at `share` of the way to another footing, as high as the higher of the two."""
        return Footing(
            self.x + share * (other.x - self.x),
            self.y + share * (other.y - self.y),
            max(self.z, other.z),
            self.yaw + share * (other.yaw - self.yaw),
        )


@dataclass(frozen=True, kw_only=True)
class Posture:
    """What stays with a person through a sequence."""

    standing_height: float  # share of the height with straight legs; above 1: as far as they go
    half_width_m: float  # between the ankles of a standing person
    toe_out: float  # rad
    splay: float  # rad, knees outwards
    trunk_flexion: float  # rad
    pelvis_pitch: float  # rad
    tempo: float  # 1: average; > 1: everything is quicker
    liveliness: float  # how much someone who stands around moves; 1: average
    elbow_swivel: float  # rad, how far the elbows are held outwards


def random_posture(rng: np.random.Generator) -> Posture:
    pelvis_pitch = float(np.clip(rng.normal(0.02, 0.08), -0.2, 0.3))
    # The trunk makes good part of the pelvis' tilt, so that the head stays over the feet.
    trunk_flexion = float(np.clip(rng.normal(-0.02, 0.11) - 0.5 * pelvis_pitch, -0.3, 0.45))
    return Posture(
        standing_height=1.003 - abs(rng.normal(0.0, 0.007)),
        half_width_m=float(np.clip(rng.normal(0.105, 0.035), 0.03, 0.24)),
        toe_out=float(np.clip(rng.normal(0.18, 0.17), -0.2, 0.7)),
        splay=float(np.clip(rng.normal(0.03, 0.08), -0.15, 0.3)),
        trunk_flexion=trunk_flexion,
        pelvis_pitch=pelvis_pitch,
        tempo=float(np.clip(rng.lognormal(0.1, 0.22), 0.65, 1.7)),
        liveliness=float(rng.uniform(0.1, 1.6)),
        elbow_swivel=float(rng.normal(0.0, 0.3)),
    )


def opposite(side: Side) -> Side:
    return "right" if side == "left" else "left"


@dataclass
class Performer:
    """Writes keys in terms of the person ("half a step ahead, knees bent") instead of the world."""

    rng: np.random.Generator
    posture: Posture
    heading: float
    timeline: Timeline = field(default_factory=Timeline)
    time_s: float = 0.0
    x: float = 0.0
    y: float = 0.0
    floor_m: float = 0.0  # height of what the person stands on
    feet: dict[Side, Footing] = field(default_factory=dict)
    beats: list[Beat] = field(default_factory=list)

    def __post_init__(self) -> None:
        for side in SIDES:
            self.feet[side] = self.footing(side)
            self.foot(side, 0.0)
        self.pelvis(0.0)
        self.trunk(0.0)

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def normal(self, mean: float, deviation: float, low: float, high: float) -> float:
        return float(np.clip(self.rng.normal(mean, deviation), low, high))

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def side(self) -> Side:
        return SIDES[int(self.rng.integers(2))]

    def seconds(self, low: float, high: float) -> float:
        """A duration in this person's tempo."""
        return self.uniform(low, high) / self.posture.tempo

    def place(self, *, left: float = 0.0, forward: float = 0.0) -> tuple[float, float]:
        """World x, y (m) of a point seen from the pelvis along the heading."""
        cosine, sine = math.cos(self.heading), math.sin(self.heading)
        return self.x + forward * cosine - left * sine, self.y + forward * sine + left * cosine

    def footing(
        self,
        side: Side,
        *,
        outward: float | None = None,
        forward: float = 0.0,
        toe_out: float | None = None,
        height_m: float = 0.0,
    ) -> Footing:
        """A footprint for `side` as seen from the pelvis; by default the standing one."""
        posture = self.posture
        outward = posture.half_width_m if outward is None else outward
        toe_out = posture.toe_out if toe_out is None else toe_out
        x, y = self.place(left=OUTWARD[side] * outward, forward=forward - PELVIS_AHEAD_OF_ANKLES_M)
        return Footing(x, y, self.floor_m + height_m, self.heading + OUTWARD[side] * toe_out)

    def foot(
        self,
        side: Side,
        time_s: float,
        *,
        lift_m: float = 0.0,
        pitch: float = 0.0,
        freedom: float = 0.0,
        splay: float | None = None,
    ) -> None:
        """Key a foot at its footing, raised by `lift_m`."""
        footing = self.feet[side]
        splay = self.posture.splay if splay is None else splay
        values = (footing.x, footing.y, footing.z + lift_m, footing.yaw, pitch, freedom, splay)
        self.timeline.key(f"{side}_foot", time_s, values)

    def move_foot(
        self, side: Side, start_s: float, end_s: float, footing: Footing, *, lift_m: float, pitch: float = 0.0
    ) -> None:
        """A small step: leave the footing at `start_s` and stand on the new one at `end_s`."""
        self.foot(side, start_s)
        self.feet[side] = self.feet[side].towards(footing, 0.5)
        self.foot(side, 0.5 * (start_s + end_s), lift_m=lift_m, pitch=pitch, freedom=0.3)
        self.feet[side] = footing
        self.foot(side, end_s)

    def pelvis(
        self,
        time_s: float,
        *,
        height: float | None = None,
        height_m: float | None = None,
        forward: float = 0.0,
        left: float = 0.0,
        turn: float = 0.0,
        pitch: float | None = None,
        roll: float = 0.0,
    ) -> None:
        """Key the pelvis: `height` as a share of standing height above the floor, or `height_m`."""
        if height_m is None:
            share = self.posture.standing_height if height is None else height
            height_m = share * STANDING_PELVIS_HEIGHT_M
        x, y = self.place(left=left, forward=forward)
        pitch = self.posture.pelvis_pitch if pitch is None else pitch
        self.timeline.key("pelvis", time_s, (x, y, self.floor_m + height_m, self.heading + turn, pitch, roll))

    def trunk(self, time_s: float, *, flexion: float = 0.0, bend: float = 0.0, twist: float = 0.0) -> None:
        """Key the trunk relative to the person's own posture."""
        self.timeline.key("trunk", time_s, (self.posture.trunk_flexion + flexion, bend, twist))

    def stand(self, start_s: float, end_s: float) -> None:
        """Return to standing over the feet (brought to a plain stance if they are far apart) by `end_s`."""
        left, right = self.feet["left"], self.feet["right"]
        self.x, self.y = 0.5 * (left.x + right.x), 0.5 * (left.y + right.y)
        self.x, self.y = self.place(forward=PELVIS_AHEAD_OF_ANKLES_M)
        for side in SIDES:
            foot, plain = self.feet[side], self.footing(side)
            if math.hypot(foot.x - plain.x, foot.y - plain.y) > 0.12 or abs(foot.z - self.floor_m) > 0.01:
                middle = 0.5 * (start_s + end_s)
                span = (start_s, middle) if side == "left" else (middle, end_s)
                self.move_foot(side, *span, plain, lift_m=0.05, pitch=0.2)
            else:
                self.foot(side, end_s)
        self.pelvis(end_s)
        self.trunk(end_s)
