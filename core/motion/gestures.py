"""What arms and gaze do while the legs do something else.

A hand's place is the wrist seen from the shoulder in metres: outward, up, forward. Places and regions below
are for an adult of nominal size.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from core.motion.performer import SIDES, Performer, Side, opposite
from core.motion.whole_body_ik import ARM_LENGTH_M


class Hand(NamedTuple):
    """One key of a hand's track."""

    outward: float
    up: float
    forward: float
    swivel: float = 0.0
    upright: float = 0.0
    pronation: float = 0.0
    flexion: float = 0.0
    deviation: float = 0.0


class Region(NamedTuple):
    """Where a hand may be: centre and spread in metres, elbow swivel and its spread in rad."""

    centre_m: tuple[float, float, float]
    spread_m: tuple[float, float, float]
    swivel: float = 0.0
    swivel_spread: float = 0.2
    upright: float = 0.0


REGIONS: dict[str, Region] = {
    "hanging": Region((0.045, -0.49, 0.09), (0.04, 0.02, 0.05), 0.05, 0.25, 1.0),
    "clasped": Region((-0.13, -0.36, 0.20), (0.04, 0.07, 0.05), 0.2, 0.2),
    "behind the back": Region((-0.10, -0.40, -0.18), (0.05, 0.05, 0.03), 0.5, 0.2),
    "on the hip": Region((0.06, -0.36, 0.06), (0.04, 0.04, 0.05), 0.9, 0.3),
    "crossed": Region((-0.22, -0.20, 0.20), (0.04, 0.04, 0.03), 0.2, 0.15),
    "at the face": Region((-0.10, 0.02, 0.19), (0.05, 0.06, 0.04), 0.2, 0.4),
    "behind the head": Region((-0.02, 0.16, -0.04), (0.04, 0.04, 0.04), 0.5, 0.3),
    "in front": Region((-0.03, -0.20, 0.32), (0.12, 0.13, 0.08), 0.2, 0.3),
    "on the lap": Region((-0.04, -0.38, 0.24), (0.08, 0.05, 0.08), 0.3, 0.3),
    "overhead": Region((0.06, 0.45, 0.10), (0.14, 0.08, 0.14), 0.0, 0.4),
    "to the side": Region((0.47, 0.02, 0.06), (0.05, 0.16, 0.14), -0.4, 0.4),
    "straight ahead": Region((0.0, -0.02, 0.47), (0.12, 0.13, 0.05), 0.1, 0.3),
    "to the floor": Region((0.0, -0.46, 0.20), (0.10, 0.06, 0.12), 0.1, 0.3, 1.0),
}


def place_hand(p: Performer, region: str) -> Hand:
    """A random place in a region."""
    centre, spread, swivel, swivel_spread, upright = REGIONS[region]
    outward, up, forward = (float(value) for value in p.rng.normal(centre, spread))
    return Hand(
        outward,
        up,
        forward,
        swivel=p.posture.elbow_swivel + p.normal(swivel, swivel_spread, -0.7, 1.4),
        upright=upright,
        pronation=p.normal(0.2, 0.5, -1.2, 1.2),
        flexion=p.normal(0.05, 0.2, -0.6, 0.6),
        deviation=p.normal(0.0, 0.12, -0.3, 0.3),
    )


def place_hand_anywhere(p: Performer) -> Hand:
    """A random place within reach: any direction but far back or far across the body."""
    elevation = p.normal(-0.35, 0.75, -1.45, 1.5)
    # From straight ahead to outward; a raised arm reaches less far across the body.
    azimuth = p.normal(0.25, 0.75, -0.9 + 0.7 * max(0.0, min(1.0, elevation)), 2.2)
    distance = ARM_LENGTH_M * float(np.clip(1.0 - abs(p.rng.normal(0, 0.22)), 0.4, 0.99))
    level = math.cos(elevation)
    outward = distance * level * math.sin(azimuth)
    return Hand(
        outward,
        distance * math.sin(elevation),
        distance * level * math.cos(azimuth),
        # An arm out to the side has its elbow lower, one across the body higher.
        swivel=p.posture.elbow_swivel + p.normal(0.05 - 0.8 * outward, 0.35, -0.9, 1.3),
        pronation=p.normal(0.2, 0.6, -1.2, 1.3),
        flexion=p.normal(0.0, 0.3, -0.8, 0.8),
        deviation=p.normal(0.0, 0.15, -0.35, 0.35),
    )


def write_gestures(performer: Performer, start_s: float, end_s: float, names: tuple[str, ...]) -> list[str]:
    """Fill a span of time with arm activities drawn from `names`; returns those used."""
    p = performer
    used = []
    time_s = start_s
    while time_s < end_s:
        name = names[int(p.rng.integers(len(names)))]
        until_s = min(time_s + p.seconds(1.5, 6.0), end_s)
        if end_s - until_s < 0.8:
            until_s = end_s
        GESTURES[name](p, time_s, until_s)
        used.append(name)
        time_s = until_s
    return used


def write_gaze(performer: Performer, start_s: float, end_s: float) -> None:
    """The head turns to something every few moments, between times it looks ahead."""
    p = performer
    down = p.normal(0.1, 0.22, -0.45, 0.55)
    lively = p.uniform(0.1, 1.2)
    time_s = start_s
    while time_s < end_s + 3:
        flexion = p.normal(down, 0.2 * lively, -0.7, 0.7)
        bend, twist = p.normal(0.0, 0.09 * lively, -0.3, 0.3), p.normal(0.0, 0.5 * lively, -1.1, 1.1)
        move_s = p.seconds(0.35, 0.7)
        for key_s in (time_s + move_s, time_s + move_s + p.seconds(0.1, 2.5)):
            p.timeline.key("head", key_s, (flexion, bend, twist))
            time_s = key_s


def swing(p: Performer, start_s: float, end_s: float) -> None:
    """Arms swing with the steps, each forward with the opposite leg; bent like a runner's when brisk."""
    bias, out, turned = p.normal(0.08, 0.1, -0.15, 0.3), p.uniform(0.02, 0.12), p.normal(0.2, 0.4, -0.6, 1.0)
    beats = [beat for beat in p.beats if start_s <= beat.time_s <= end_s]
    bent = p.uniform(0.0, 1.0)
    for beat in beats:
        for side in SIDES:
            forward = 1.0 if side == opposite(beat.side) else -1.0
            angle = bias + forward * 0.42 * min(beat.amplitude, 1.9)
            brisk = min(1.0, max(0.0, beat.amplitude - 1.3 + 0.5 * bent))
            length = ARM_LENGTH_M * (0.985 - 0.05 * max(forward, 0.0) - 0.27 * brisk)
            angle += brisk * 0.45  # bent elbows bring the hands forward
            across = 0.08 * brisk * max(forward, 0.0)
            hand = Hand(out - across, -length * math.cos(angle), length * math.sin(angle), 0.1, 0.7, turned)
            _key(p, side, beat.time_s, hand._replace(swivel=hand.swivel + p.posture.elbow_swivel))
    if not beats:
        hang(p, start_s, end_s)


def hang(p: Performer, start_s: float, end_s: float) -> None:
    _hold(p, start_s, end_s, dict.fromkeys(SIDES, "hanging"))


def rest(p: Performer, start_s: float, end_s: float) -> None:
    """Both hands in one of the postures people stand or sit around in, or one hand and the other hanging."""
    both = ("hanging", "clasped", "behind the back", "on the hip", "crossed", "in front", "behind the head")
    one = ("on the hip", "at the face", "in front", "clasped", "behind the head")
    if p.chance(0.6):
        regions = dict.fromkeys(SIDES, both[int(p.rng.choice(7, p=(0.22, 0.24, 0.12, 0.1, 0.2, 0.1, 0.02)))])
    else:
        side = p.side()
        regions = {side: one[int(p.rng.integers(len(one)))], opposite(side): "hanging"}
    _hold(p, start_s, end_s, regions)


def seated(p: Performer, start_s: float, end_s: float) -> None:
    regions: dict[Side, str] = dict.fromkeys(SIDES, "on the lap")
    if p.chance(0.4):
        regions[p.side()] = ("at the face", "in front", "hanging", "crossed")[int(p.rng.integers(4))]
    _hold(p, start_s, end_s, regions)


def gesture(p: Performer, start_s: float, end_s: float) -> None:
    """Talking with the hands: quick keys in front of the body, sometimes with one hand only."""
    still = p.side() if p.chance(0.35) else None
    mirrored = p.chance(0.35)
    time_s = start_s + 0.4
    while time_s < end_s:
        hand = place_hand(p, "in front")
        for side in SIDES:
            if side == still:
                _key(p, side, time_s, place_hand(p, "hanging"))
            else:
                _key(p, side, time_s, hand if mirrored else place_hand(p, "in front"))
        time_s += p.seconds(0.2, 0.75)


def reach(p: Performer, start_s: float, end_s: float) -> None:
    """One or both hands go out to somewhere and come back; the trunk turns and bends after them."""
    time_s = start_s
    both = p.chance(0.35)
    side = p.side()
    home = {each: place_hand(p, "hanging") for each in SIDES}
    while time_s < end_s:
        hand = place_hand_anywhere(p)
        go_s, hold_s, back_s = p.seconds(0.5, 1.0), p.seconds(0.05, 0.8), p.seconds(0.5, 1.0)
        sign = 1.0 if side == "left" else -1.0
        follow = p.uniform(0.0, 0.5)
        lean = (
            0.4 * follow * hand.forward / ARM_LENGTH_M - 0.3 * follow * max(hand.up, 0) / ARM_LENGTH_M,
            0.0 if both else -sign * 0.4 * follow * hand.outward / ARM_LENGTH_M,
            0.0 if both else -sign * 0.7 * follow * max(hand.forward, 0) / ARM_LENGTH_M,
        )
        p.timeline.key("trunk_gesture", time_s, (0.0, 0.0, 0.0))
        for each in SIDES:
            moving = both or each == side
            _key(p, each, time_s, home[each])
            for key_s in (time_s + go_s, time_s + go_s + hold_s):
                _key(p, each, key_s, hand if moving else home[each])
        for key_s in (time_s + go_s, time_s + go_s + hold_s):
            p.timeline.key("trunk_gesture", key_s, lean)
        time_s += go_s + hold_s + back_s
        p.timeline.key("trunk_gesture", time_s, (0.0, 0.0, 0.0))
        for each in SIDES:
            _key(p, each, time_s, home[each])


def roam(p: Performer, start_s: float, end_s: float) -> None:
    """Hands wander through everything within reach, together, mirrored or each for itself."""
    time_s = start_s + 0.3
    mirrored = p.chance(0.45)
    pause = p.uniform(0.0, 0.5)
    while time_s < end_s:
        hand = place_hand_anywhere(p)
        hold_s = pause * p.uniform(0.0, 1.0)
        for side in SIDES:
            other = hand if mirrored or side == "left" else place_hand_anywhere(p)
            _key(p, side, time_s, other)
            _key(p, side, time_s + hold_s, other)
        time_s += hold_s + p.seconds(0.3, 0.9)


def wave(p: Performer, start_s: float, end_s: float) -> None:
    """A raised hand goes to and fro; sometimes both, as in directing traffic."""
    side, both = p.side(), p.chance(0.3)
    hand = place_hand(p, ("overhead", "to the side", "at the face")[int(p.rng.integers(3))])
    hand = hand._replace(outward=hand.outward + 0.12)
    width, period_s = p.uniform(0.05, 0.18), p.seconds(0.35, 0.8)
    still = {each: place_hand(p, "hanging") for each in SIDES}
    time_s, sign = start_s + 0.6, 1.0
    while time_s < end_s:
        moved = hand._replace(outward=hand.outward + sign * width, swivel=hand.swivel + 0.2 * sign)
        for each in SIDES:
            _key(p, each, time_s, moved if both or each == side else still[each])
        time_s, sign = time_s + 0.5 * period_s, -sign


def arms_up(p: Performer, start_s: float, end_s: float) -> None:
    """Both arms up or out, up and down again, as in stretching, cheering or jumping jacks."""
    raised = ("overhead", "to the side")[int(p.rng.integers(2))]
    repeats = p.chance(0.5)
    time_s = start_s + p.seconds(0.4, 0.9)
    up = True
    while time_s < end_s:
        hand = place_hand(p, raised if up else "hanging")
        hold_s = 0.1 if repeats else p.seconds(0.4, 2.0)
        for side in SIDES:
            _key(p, side, time_s, hand)
            _key(p, side, time_s + hold_s, hand)
        if up and raised == "overhead":  # arms rise sideways, not through the body
            between = place_hand(p, "to the side" if p.chance(0.6) else "straight ahead")
            for side in SIDES:
                _key(p, side, time_s + hold_s + 0.4, between)
            hold_s += 0.4
        time_s += hold_s + p.seconds(0.35, 0.9)
        up = not up if repeats else up


def cyclic(p: Performer, start_s: float, end_s: float) -> None:
    """A repeated stroke between two places: dribbling, wiping, punching, sawing, drinking, climbing rungs."""
    places = (
        "in front",
        "straight ahead",
        "at the face",
        "clasped",
        "overhead",
        "to the side",
        "to the floor",
    )
    first, second = (
        place_hand(p, places[int(index)]) for index in p.rng.choice(len(places), 2, replace=False)
    )
    share = p.uniform(0.25, 1.0)
    second = Hand(*(a + share * (b - a) for a, b in zip(first, second, strict=True)))
    side, kind = p.side(), p.uniform(0.0, 1.0)  # one hand, both together, alternating
    still = place_hand(p, "hanging" if p.chance(0.5) else "in front")
    half_s = p.seconds(0.18, 0.8)
    time_s, at_first = start_s + 0.5, True
    while time_s < end_s:
        for each in SIDES:
            if kind < 0.4 and each != side:
                _key(p, each, time_s, still)
            else:
                alternating = kind > 0.7 and each != side
                _key(p, each, time_s, first if at_first != alternating else second)
        time_s, at_first = time_s + half_s, not at_first


GESTURES: dict[str, Callable[[Performer, float, float], None]] = {
    "swing": swing,
    "hang": hang,
    "rest": rest,
    "seated": seated,
    "gesture": gesture,
    "reach": reach,
    "roam": roam,
    "wave": wave,
    "arms up": arms_up,
    "cyclic": cyclic,
}


def _hold(p: Performer, start_s: float, end_s: float, regions: dict[Side, str]) -> None:
    """Both hands held in their regions, drifting a little."""
    symmetric = len(set(regions.values())) == 1
    hands = {side: place_hand(p, region) for side, region in regions.items()}
    if symmetric:
        hands["right"] = Hand(
            *(0.7 * a + 0.3 * b for a, b in zip(hands["left"], hands["right"], strict=True))
        )
    time_s = start_s + min(p.seconds(0.5, 1.0), 0.5 * (end_s - start_s))
    while time_s < end_s:
        for side in SIDES:
            drift = p.rng.normal(0, 0.012, 3)
            hand = hands[side]
            hand = hand._replace(
                outward=hand.outward + float(drift[0]),
                up=hand.up + float(drift[1]),
                forward=hand.forward + float(drift[2]),
            )
            _key(p, side, time_s, hand)
        time_s += p.seconds(0.8, 2.5)


def _key(p: Performer, side: Side, time_s: float, hand: Hand) -> None:
    p.timeline.key(f"{side}_hand", time_s, tuple(hand))
