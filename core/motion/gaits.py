"""Locomotion as footsteps: walking, running, side steps, turning, climbing, dancing.

A gait is planned as footprints along a path; the pelvis travels between them, and the joint angles follow
from the inverse kinematics. Step lengths and times follow the usual ranges of human gait (Winter, The
Biomechanics and Motor Control of Human Gait, 1991): a walking foot swings for about 40 % of its cycle and
the heel rises before it leaves the floor; a runner has both feet in the air twice a cycle.
"""

import math
from dataclasses import dataclass, replace

from core.motion.performer import OUTWARD, Beat, Footing, Performer, Side, opposite
from core.motion.whole_body_ik import STANDING_PELVIS_HEIGHT_M


@dataclass(frozen=True, kw_only=True)
class Gait:
    """How the steps are made; lengths in metres, angles in rad."""

    step_time_s: float
    swing_share: float  # duration of a swing over the step time; above 1 both feet are in the air for a while
    half_width_m: float
    lift_m: float  # of the ankle, in mid-swing
    toe_off: float  # heel rise when the foot leaves
    strike: float  # toe rise when the heel lands
    swing_freedom: float  # how far the swinging foot hangs from the shin
    height: float  # of the pelvis, share of standing
    bounce_m: float  # pelvis rise in mid-stance (negative in running)
    sway_m: float  # pelvis over the standing foot
    twist: float  # pelvis turned with the forward leg
    roll: float  # hip of the swinging leg dropped
    trunk_bend: float  # to the side of the standing leg, in mid-stance
    lean: float  # pelvis forward
    trunk_flexion: float
    trunk_twist: float
    arm_swing: float


@dataclass(frozen=True)
class Step:
    """One step of a plan: how far, in which direction seen from the heading, and how the heading turns."""

    length_m: float
    direction: float = 0.0
    turn: float = 0.0
    rise_m: float = 0.0


def take_steps(performer: Performer, gait: Gait, steps: list[Step]) -> None:
    """Write the keys of a series of steps, from standing to standing."""
    p = performer
    step_s, height_m = gait.step_time_s, gait.height * STANDING_PELVIS_HEIGHT_M
    side = p.side()
    landed_s: dict[Side, float] = {"left": p.time_s - step_s, "right": p.time_s - step_s}
    for number, step in enumerate(steps):
        land_s = p.time_s + step_s
        lift_s = max(
            land_s - gait.swing_share * step_s, p.time_s if number == 0 else 0.0, landed_s[side] + 0.05
        )
        middle_heading = p.heading + 0.5 * step.turn + step.direction
        p.x += step.length_m * math.cos(middle_heading)
        p.y += step.length_m * math.sin(middle_heading)
        p.heading += step.turn
        p.floor_m += step.rise_m
        following = steps[number + 1] if number + 1 < len(steps) else Step(0.0)
        ahead = 0.5 * following.length_m
        target = p.footing(
            side,
            outward=gait.half_width_m + OUTWARD[side] * ahead * math.sin(following.direction),
            forward=ahead * math.cos(following.direction),
        )
        backwards = math.cos(step.direction) < 0.3
        _swing(p, gait, side, (landed_s[side], lift_s, land_s), target, rolling=0.4 if backwards else 1.0)

        ahead_side = opposite(side) if math.cos(step.direction) < -0.3 else side  # the leg now in front
        sign, twist_sign = OUTWARD[side], OUTWARD[ahead_side]
        # Too high for the legs is lowered to their reach later; on stairs the pelvis rises half a step late.
        p.pelvis(
            land_s,
            height_m=height_m - 0.5 * gait.bounce_m - 0.5 * step.rise_m,
            turn=-twist_sign * gait.twist,
            pitch=p.posture.pelvis_pitch + gait.lean,
        )
        p.trunk(land_s, flexion=gait.trunk_flexion, twist=twist_sign * gait.trunk_twist)
        if number + 1 < len(steps):
            p.pelvis(
                land_s + 0.5 * step_s,
                height_m=height_m + 0.5 * gait.bounce_m,
                forward=ahead * math.cos(following.direction),
                left=sign * gait.sway_m + ahead * math.sin(following.direction),
                turn=0.5 * following.turn,
                pitch=p.posture.pelvis_pitch + gait.lean,
                roll=sign * gait.roll,
            )
            p.trunk(land_s + 0.5 * step_s, flexion=1.1 * gait.trunk_flexion, bend=-sign * gait.trunk_bend)
        p.beats.append(Beat(land_s, ahead_side, gait.arm_swing))
        landed_s[side] = land_s
        side = opposite(side)
        p.time_s = land_s
    p.time_s += 0.6
    p.stand(p.time_s - 0.5, p.time_s)


def walk(performer: Performer, duration_s: float) -> None:
    """Forward along straight and curved paths, at varied speed and in varied posture."""
    p = performer
    pace = p.normal(1.1, 0.28, 0.45, 1.9)
    step_s = p.normal(0.55, 0.05, 0.45, 0.7) / math.sqrt(pace)
    length = 0.68 * math.sqrt(pace) * pace**0.25 * p.uniform(0.85, 1.1)
    gait = _random_walk(p, step_s, pace)
    count = max(3, round(duration_s / step_s))
    curve = p.normal(0.0, 0.10, -0.35, 0.35)
    direction = 0.0
    if p.chance(0.12):  # backwards
        direction, length = math.pi, 0.6 * length
    take_steps(p, gait, _ramped([Step(length, direction, curve + p.normal(0.0, 0.04, -0.1, 0.1))] * count))


def run(performer: Performer, duration_s: float) -> None:
    """Jogging and running, with both feet in the air between steps."""
    p = performer
    speed = p.normal(2.6, 0.6, 1.6, 4.0)
    step_s = p.normal(0.36, 0.025, 0.3, 0.42)
    gait = Gait(
        step_time_s=step_s,
        swing_share=p.uniform(1.15, 1.4),
        half_width_m=p.uniform(0.03, 0.09),
        lift_m=p.uniform(0.16, 0.24) + 0.05 * speed,
        toe_off=p.uniform(0.6, 0.95),
        strike=p.uniform(-0.05, 0.2),
        swing_freedom=1.0,
        height=p.uniform(0.93, 0.965),
        bounce_m=-p.uniform(0.05, 0.09),
        sway_m=0.01,
        twist=p.uniform(0.05, 0.2),
        roll=p.uniform(0.0, 0.07),
        trunk_bend=p.uniform(0.0, 0.1),
        lean=p.uniform(0.05, 0.22),
        trunk_flexion=p.uniform(0.0, 0.2),
        trunk_twist=p.uniform(0.1, 0.35),
        arm_swing=p.uniform(1.2, 2.2),
    )
    count = max(5, round(duration_s / step_s))
    curve = p.normal(0.0, 0.08, -0.2, 0.2)
    take_steps(p, gait, _ramped([Step(speed * step_s, 0.0, curve)] * count))


def turn(performer: Performer, duration_s: float) -> None:
    """On the spot, by a quarter up to a full turn, in small steps."""
    p = performer
    total = p.uniform(0.6, 2.0 * math.pi) * OUTWARD[p.side()]
    per_step = p.uniform(0.35, 0.9)
    gait = replace(_random_walk(p, p.seconds(0.35, 0.6), 0.6), strike=0.0, toe_off=p.uniform(0.15, 0.45))
    count = max(2, math.ceil(abs(total) / per_step))
    take_steps(p, gait, [Step(p.uniform(0.0, 0.08), 0.0, total / count)] * count)


def side_step(performer: Performer, duration_s: float) -> None:
    """Sideways and diagonally, as in guarding, shuffling or making room."""
    p = performer
    gait = _random_walk(p, p.seconds(0.3, 0.55), 0.8)
    gait = replace(
        gait,
        strike=0.0,
        toe_off=0.25,
        half_width_m=p.uniform(0.1, 0.22),
        height=gait.height - p.uniform(0.0, 0.12),
    )
    count = max(4, round(duration_s / gait.step_time_s))
    length, direction = p.uniform(0.12, 0.35), OUTWARD[p.side()] * p.normal(math.pi / 2.0, 0.3, 0.6, 2.4)
    half = count // 2
    there, back = [Step(length, direction)] * half, [Step(length, direction + math.pi)] * half
    take_steps(p, gait, there + back)


def dance(performer: Performer, duration_s: float) -> None:
    """Quick patterned steps in all directions with hips and trunk moving, as in salsa."""
    p = performer
    rng = p.rng
    step_s = p.seconds(0.22, 0.42)
    lean = p.normal(0.1, 0.15, -0.2, 0.45)
    gait = Gait(
        step_time_s=step_s,
        swing_share=p.uniform(0.6, 0.85),
        half_width_m=p.uniform(-0.02, 0.14),
        lift_m=p.uniform(0.05, 0.18),
        toe_off=p.uniform(0.3, 0.8),
        strike=0.0,
        swing_freedom=p.uniform(0.2, 0.7),
        height=p.uniform(0.9, 0.975),
        bounce_m=p.uniform(-0.03, 0.04),
        sway_m=p.uniform(0.01, 0.09),
        twist=p.uniform(0.05, 0.45),
        roll=p.uniform(-0.1, 0.25),
        trunk_bend=p.normal(0.0, 0.25, -0.5, 0.5),
        lean=lean,
        trunk_flexion=p.normal(0.0, 0.12, -0.25, 0.25) - 0.8 * lean,
        trunk_twist=p.uniform(0.05, 0.5),
        arm_swing=p.uniform(0.3, 1.2),
    )
    pattern = [
        Step(p.uniform(0.08, 0.65), p.uniform(-math.pi, math.pi), p.normal(0.0, 0.4, -1.2, 1.2))
        for _ in range(int(rng.integers(2, 5)))
    ]
    if p.chance(0.35):  # spins
        pattern.append(Step(0.05, 0.0, OUTWARD[p.side()] * p.uniform(0.8, 1.6)))
    count = max(4, round(duration_s / step_s))
    take_steps(p, gait, (pattern * count)[:count])


def climb(performer: Performer, duration_s: float) -> None:
    """Up a few stairs or the rungs of a ladder, and down again backwards."""
    p = performer
    ladder = p.chance(0.4)
    rise = p.uniform(0.22, 0.34) if ladder else p.uniform(0.14, 0.24)
    length = p.uniform(0.02, 0.08) if ladder else p.uniform(0.26, 0.36)
    gait = replace(
        _random_walk(p, p.seconds(0.6, 1.1), 0.8),
        lift_m=rise + 0.08,
        toe_off=p.uniform(0.3, 0.6),
        strike=0.0,
        lean=p.uniform(0.05, 0.3),
        trunk_flexion=p.uniform(0.0, 0.35),
        bounce_m=0.0,
        height=0.96,
        arm_swing=0.6,
    )
    count = int(min(5, max(2, duration_s / gait.step_time_s / 2)))
    up = [Step(length, 0.0, 0.0, rise)] * count
    down = [Step(length, math.pi, 0.0, -rise)] * count
    take_steps(p, gait, [*up, Step(0.0), *down, Step(0.0)])


def _random_walk(p: Performer, step_s: float, pace: float) -> Gait:
    crouch = p.uniform(0.05, 0.2) if p.chance(0.12) else 0.0
    exaggeration = p.uniform(1.2, 2.2) if p.chance(0.15) else 1.0
    return Gait(
        step_time_s=step_s,
        swing_share=p.uniform(0.74, 0.84),
        half_width_m=p.normal(0.06, 0.035, 0.0, 0.17),
        lift_m=p.uniform(0.07, 0.12) * exaggeration,
        toe_off=p.uniform(0.45, 0.85) * min(pace, 1.1),
        strike=p.uniform(0.1, 0.35) * min(pace, 1.1),
        swing_freedom=p.uniform(0.3, 0.7),
        height=p.uniform(0.97, 1.0) - crouch,
        bounce_m=p.uniform(0.015, 0.045),
        sway_m=p.uniform(0.01, 0.06) * min(exaggeration, 1.5),
        twist=p.uniform(0.02, 0.16) * exaggeration,
        roll=p.uniform(0.0, 0.12) * min(exaggeration, 1.5),
        trunk_bend=p.normal(0.05, 0.12, -0.2, 0.35),
        lean=p.normal(0.06, 0.06, -0.1, 0.25) + 0.8 * crouch,
        trunk_flexion=p.normal(0.0, 0.08, -0.15, 0.25) + crouch,
        trunk_twist=p.uniform(0.03, 0.25) * exaggeration,
        arm_swing=pace * p.uniform(0.4, 1.3) * exaggeration,
    )


def _ramped(steps: list[Step]) -> list[Step]:
    """The same walk, starting and ending with shorter steps."""
    first = replace(steps[0], length_m=0.55 * steps[0].length_m)
    last = replace(steps[-1], length_m=0.5 * steps[-1].length_m)
    return [first, *steps[1:-1], last]


def _swing(
    p: Performer,
    gait: Gait,
    side: Side,
    times_s: tuple[float, float, float],
    target: Footing,
    *,
    rolling: float,
) -> None:
    """One foot from its footing to `target`: flat, heel up, lift, swing, land, flat."""
    landed_s, lift_s, land_s = times_s
    start = p.feet[side]
    swing_s, stance_s = land_s - lift_s, lift_s - landed_s
    p.foot(side, lift_s - 0.45 * stance_s)
    p.foot(side, lift_s, pitch=rolling * gait.toe_off)
    climbing = target.z - start.z
    for share, way, lift, pitch in ((0.4, 0.35, 1.0, 0.7), (0.72, 0.8, 0.55, 0.0)):
        p.feet[side] = start.towards(target, way)
        lift_m = lift * (gait.lift_m - max(climbing, 0.0) if climbing else gait.lift_m)
        pitch = pitch * rolling * gait.toe_off if pitch else -0.5 * rolling * gait.strike
        p.foot(side, lift_s + share * swing_s, lift_m=lift_m, pitch=pitch, freedom=gait.swing_freedom)
    p.feet[side] = target
    p.foot(side, land_s, pitch=-rolling * gait.strike)
    p.foot(side, land_s + 0.15 * gait.step_time_s)
