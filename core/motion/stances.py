"""What people do in place: standing idle, squatting, sitting, jumping, kicking, lunging, bending, key poses.

Each activity starts from standing, writes keys for pelvis, feet and trunk, and ends standing.
"""

import math
from dataclasses import replace

from core.motion.performer import OUTWARD, SIDES, Performer, Side, opposite
from core.motion.whole_body_ik import LEG_LENGTH_M, STANDING_PELVIS_HEIGHT_M

GRAVITY_M_PER_S2 = 9.81
SEAT_TO_PELVIS_M = 0.10


def idle(performer: Performer, duration_s: float) -> None:
    """Standing: weight shifted from leg to leg, small turns of the trunk, now and then a foot moved."""
    p = performer
    end_s = p.time_s + duration_s
    while p.time_s < end_s:
        if p.chance(0.2 * p.posture.liveliness):
            side = p.side()
            footing = p.footing(
                side, outward=p.normal(0.11, 0.05, 0.05, 0.28), forward=p.normal(0.0, 0.07, -0.2, 0.2)
            )
            footing = replace(footing, yaw=footing.yaw + p.normal(0.0, 0.15, -0.3, 0.3))
            p.move_foot(
                side, p.time_s + 0.1, p.time_s + p.seconds(0.4, 0.6), footing, lift_m=0.04, pitch=0.25
            )
        p.time_s += p.seconds(0.8, 4.0)
        lively = p.posture.liveliness
        shift = lively * p.normal(0.0, 0.03, -0.08, 0.08)
        p.pelvis(
            p.time_s,
            height=p.posture.standing_height
            - 0.25 * abs(shift)
            - (p.uniform(0.0, 0.03) if p.chance(0.2) else 0),
            left=shift,
            forward=p.normal(0.0, 0.012, -0.03, 0.03),
            turn=lively * p.normal(0.0, 0.08, -0.25, 0.25),
            pitch=p.posture.pelvis_pitch + lively * p.normal(0.0, 0.03, -0.08, 0.08),
            roll=-0.8 * shift,
        )
        p.trunk(
            p.time_s,
            flexion=lively * p.normal(0.0, 0.06, -0.15, 0.2),
            bend=0.6 * shift + lively * p.normal(0.0, 0.03, -0.1, 0.1),
            twist=lively * p.normal(0.0, 0.1, -0.3, 0.3),
        )
        for side in SIDES:
            p.foot(side, p.time_s)


def squat(performer: Performer, duration_s: float) -> None:
    """Down to half or full depth, heels down or up, held or repeated."""
    p = performer
    for _ in range(int(p.rng.integers(1, 4))):
        depth = p.uniform(0.4, 0.85)  # share of standing height that remains
        down_s, hold_s, up_s = p.seconds(0.5, 1.1), p.seconds(0.05, 1.2), p.seconds(0.5, 1.0)
        bent = 1 - depth
        heel = p.uniform(0.2, 0.7) if depth < 0.6 and p.chance(0.4) else 0.0
        splay = p.posture.splay + p.uniform(0.1, 0.6) * bent
        for time_s in (p.time_s + down_s, p.time_s + down_s + hold_s):
            p.pelvis(
                time_s,
                height=depth,
                forward=-p.uniform(0.05, 0.25) * bent + 0.12 * heel,
                pitch=p.uniform(0.2, 1.0) * bent,
                left=p.normal(0.0, 0.02, -0.05, 0.05),
            )
            p.trunk(time_s, flexion=p.uniform(0.2, 1.0) * bent, twist=p.normal(0.0, 0.1, -0.3, 0.3))
            for side in SIDES:
                p.foot(side, time_s, pitch=heel, splay=splay)
        p.time_s += down_s + hold_s + up_s
        p.stand(p.time_s - 0.3, p.time_s)


def sit(performer: Performer, duration_s: float) -> None:
    """Down onto a stool, chair or the floor; seated with changing legs and trunk; up again."""
    p = performer
    on_floor = p.chance(0.15)
    pelvis_m = p.uniform(0.18, 0.22) if on_floor else SEAT_TO_PELVIS_M + p.normal(0.43, 0.09, 0.25, 0.75)
    down_s = p.seconds(0.8, 1.4)
    back = p.uniform(0.25, 0.42)
    slump = p.normal(0.1, 0.2, -0.25, 0.6)
    # On the way the trunk leans forward to keep the weight over the feet.
    p.pelvis(
        p.time_s + 0.6 * down_s,
        height_m=0.45 * pelvis_m + 0.5,
        forward=-0.55 * back,
        pitch=p.uniform(0.3, 0.7),
    )
    p.trunk(p.time_s + 0.5 * down_s, flexion=p.uniform(0.2, 0.6))
    for side in SIDES:
        p.foot(side, p.time_s + 0.9 * down_s)
    p.time_s += down_s
    end_s = p.time_s + max(duration_s, 1.0)
    p.x, p.y = p.place(forward=-back)
    yaw_offset = 0.0
    while True:
        p.pelvis(
            p.time_s,
            height_m=pelvis_m,
            pitch=p.normal(-0.1, 0.15, -0.5, 0.3),
            turn=yaw_offset,
            roll=p.normal(0.0, 0.03, -0.1, 0.1),
        )
        p.trunk(
            p.time_s,
            flexion=slump + p.normal(0.0, 0.12, -0.3, 0.4),
            bend=p.normal(0.0, 0.08, -0.25, 0.25),
            twist=p.normal(0.0, 0.15, -0.4, 0.4),
        )
        if p.time_s >= end_s:
            break
        hold_s = p.seconds(0.7, 3.0)
        for side in SIDES:
            if p.chance(0.5):
                _move_seated_foot(p, side, hold_s, pelvis_m, on_floor)
        p.time_s += hold_s
        yaw_offset = p.normal(0.0, 0.05, -0.15, 0.15)
    # Feet back under the knees, then up and forward over them.
    for side in SIDES:
        p.foot(side, p.time_s)
        p.feet[side] = p.footing(side, outward=0.12, forward=p.uniform(0.28, 0.36))
        p.foot(side, p.time_s + 0.5)
    p.time_s += 0.7
    p.pelvis(p.time_s, height_m=pelvis_m + 0.04, forward=0.1, pitch=p.uniform(0.3, 0.7))
    p.trunk(p.time_s, flexion=p.uniform(0.3, 0.7))
    p.time_s += p.seconds(0.7, 1.2)
    p.stand(p.time_s - 0.2, p.time_s)


def jump(performer: Performer, duration_s: float) -> None:
    """Vertical, forward, turning, tucked and straddled jumps, and jumping jacks; ballistic in the air."""
    p = performer
    end_s = p.time_s + duration_s
    jacks = p.chance(0.3)
    apart = False
    while p.time_s < end_s:
        flight_s = p.uniform(0.16, 0.3) if jacks else p.uniform(0.28, 0.62)
        crouch = p.uniform(0.86, 0.95) if jacks else p.uniform(0.68, 0.9)
        down_s = 0.18 if jacks else p.seconds(0.3, 0.6)
        apart = not apart
        _one_jump(
            p,
            flight_s=flight_s,
            crouch=crouch,
            down_s=down_s,
            forward_m=0.0 if jacks else p.normal(0.15, 0.3, -0.3, 1.0) * flight_s * 1.6,
            turn=0.0 if jacks or p.chance(0.6) else p.normal(0.0, 1.2, -math.pi, math.pi),
            tuck_m=0.0 if jacks else p.uniform(0.0, 0.35) * flight_s,
            half_width_m=(0.32 if apart else 0.09) if jacks else p.posture.half_width_m * p.uniform(0.8, 1.6),
        )
    p.time_s += 0.5
    p.stand(p.time_s - 0.3, p.time_s)


def kick(performer: Performer, duration_s: float) -> None:
    """Kicks of a ball and higher ones, forward and sideways, knee raises and swings of one leg."""
    p = performer
    for _ in range(int(p.rng.integers(1, 4))):
        side = p.side()
        start_s, back_s, hit_s, rest_s = (
            p.time_s,
            p.seconds(0.3, 0.6),
            p.seconds(0.18, 0.45),
            p.seconds(0.5, 0.9),
        )
        sideways = p.uniform(0.2, 0.7) if p.chance(0.25) else p.uniform(-0.1, 0.15)
        height, ahead = p.uniform(0.1, 0.95), p.uniform(0.25, 0.7) * (1 - abs(sideways))
        home = p.feet[side]
        p.foot(side, start_s)
        p.feet[side] = p.footing(side, outward=0.1, forward=-p.uniform(0.1, 0.5))
        p.foot(side, start_s + back_s, lift_m=p.uniform(0.1, 0.4), pitch=0.5, freedom=1.0)
        p.feet[side] = p.footing(side, outward=0.1 + sideways, forward=ahead)
        p.foot(side, start_s + back_s + hit_s, lift_m=height, pitch=p.uniform(-0.3, 0.8), freedom=1.0)
        if p.chance(0.3):  # held
            hit_s += p.seconds(0.3, 1.0)
            p.foot(side, start_s + back_s + hit_s, lift_m=height, pitch=0.2, freedom=1.0)
        p.feet[side] = home
        p.foot(side, start_s + back_s + hit_s + rest_s)
        away = -OUTWARD[side] * p.uniform(0.6, 1.0) * p.posture.half_width_m
        lean = p.uniform(-0.35, 0.05) * (0.4 + height)
        p.pelvis(start_s + back_s, height=p.uniform(0.93, 0.985), left=away, pitch=p.uniform(0.0, 0.25))
        p.pelvis(
            start_s + back_s + hit_s,
            height=p.uniform(0.94, 0.99),
            left=away,
            forward=p.uniform(0.0, 0.05),
            turn=-OUTWARD[side] * p.uniform(0.0, 0.5),
            pitch=lean,
            roll=-OUTWARD[side] * 0.3 * sideways,
        )
        p.trunk(start_s + back_s, twist=OUTWARD[side] * p.uniform(0.0, 0.4), flexion=p.uniform(-0.1, 0.2))
        p.trunk(
            start_s + back_s + hit_s, twist=-OUTWARD[side] * p.uniform(0.0, 0.4), flexion=p.uniform(0.0, 0.5)
        )
        p.foot(opposite(side), start_s + back_s)
        p.time_s = start_s + back_s + hit_s + rest_s
        p.stand(p.time_s - 0.2, p.time_s)


def lunge(performer: Performer, duration_s: float) -> None:
    """Forward and sideways lunges and kneeling on one knee."""
    p = performer
    side = p.side()
    other = opposite(side)
    kneel = p.chance(0.35)
    sideways = not kneel and p.chance(0.3)
    reach = p.uniform(0.5, 0.95)
    step_s, hold_s, back_s = p.seconds(0.5, 0.9), p.seconds(0.2, 2.0), p.seconds(0.6, 1.0)
    home = p.feet[side]
    footing = (
        p.footing(side, outward=reach, toe_out=p.uniform(0.1, 0.6))
        if sideways
        else p.footing(side, outward=0.12, forward=0.75 * reach)
    )
    p.move_foot(side, p.time_s, p.time_s + step_s, footing, lift_m=0.12, pitch=0.2)
    height = p.uniform(0.52, 0.6) if kneel else p.uniform(0.62, 0.88)
    share = p.uniform(0.35, 0.65)
    for time_s in (p.time_s + step_s, p.time_s + step_s + hold_s):
        p.pelvis(
            time_s,
            height=height,
            forward=0.0 if sideways else 0.75 * share * reach,
            left=OUTWARD[side] * share * reach if sideways else 0.0,
            pitch=p.normal(0.1, 0.15, -0.15, 0.6),
            turn=p.normal(0.0, 0.1, -0.3, 0.3),
        )
        p.trunk(time_s, flexion=p.normal(0.1, 0.2, -0.2, 0.7), twist=p.normal(0.0, 0.25, -0.6, 0.6))
        p.foot(side, time_s, splay=p.uniform(-0.1, 0.3))
        p.foot(
            other, time_s, pitch=0.0 if sideways else p.uniform(0.5, 1.1) * min(1.0, 1.6 * (1 - height) + 0.4)
        )
    p.time_s += step_s + hold_s + back_s
    p.feet[side] = home
    p.stand(p.time_s - 0.3, p.time_s)


def bend(performer: Performer, duration_s: float) -> None:
    """Bending forward, to a side or back, with straight or yielding knees; picking something up."""
    p = performer
    for _ in range(int(p.rng.integers(1, 3))):
        go_s, hold_s, up_s = p.seconds(0.6, 1.3), p.seconds(0.1, 1.5), p.seconds(0.6, 1.2)
        forward = p.chance(0.75)
        pitch = p.uniform(0.2, 1.1) if forward else p.uniform(-0.25, 0.0)
        flexion = p.uniform(0.2, 1.2) if forward else p.uniform(-0.6, 0.0)
        sideways = p.normal(0.0, 0.15, -0.4, 0.4) if forward else p.normal(0.0, 0.4, -0.7, 0.7)
        for time_s in (p.time_s + go_s, p.time_s + go_s + hold_s):
            p.pelvis(
                time_s,
                height=p.uniform(0.75, 0.985) if forward else p.uniform(0.94, 0.99),
                forward=-0.16 * pitch,
                pitch=pitch,
                roll=0.3 * sideways,
                left=0.1 * sideways,
            )
            p.trunk(time_s, flexion=flexion, bend=sideways, twist=p.normal(0.0, 0.25, -0.7, 0.7))
        p.time_s += go_s + hold_s + up_s
        p.stand(p.time_s - 0.3, p.time_s)


def key_poses(performer: Performer, duration_s: float) -> None:
    """Random poses within the joints' limits, on two legs or one, each held for a moment."""
    p = performer
    end_s = p.time_s + duration_s
    while p.time_s < end_s:
        p.time_s += p.seconds(0.45, 1.1)
        hold_s = p.seconds(0.05, 0.6)
        one_leg = p.chance(0.5)
        side = p.side()
        height = 1 - abs(p.normal(0.0, 0.14, -0.45, 0.45))
        pitch = p.normal(0.05, 0.3, -0.5, 0.9)
        lift_m, home = 0.0, p.feet[side]
        if one_leg:
            lift_m = p.uniform(0.08, 0.8) * LEG_LENGTH_M
            reach = math.sqrt(max(0.0, LEG_LENGTH_M**2 - (LEG_LENGTH_M * height - lift_m) ** 2))
            around = p.normal(0.0, 1.3, -math.pi, math.pi) * OUTWARD[side]
            p.feet[side] = p.footing(
                side,
                outward=max(-0.05, 0.1 + 0.75 * reach * math.sin(around) * OUTWARD[side]),
                forward=0.75 * reach * math.cos(around),
            )
        elif p.chance(0.5):
            footing = p.footing(side, outward=p.uniform(0.05, 0.5), forward=p.normal(0.0, 0.25, -0.6, 0.6))
            p.move_foot(side, p.time_s - 0.4, p.time_s, footing, lift_m=0.08, pitch=0.3)
        stance = p.feet[opposite(side)]
        over = p.uniform(0.5, 1.0) if one_leg else p.uniform(0.0, 0.5)
        left = -OUTWARD[side] * over * p.posture.half_width_m
        foot_pitch, turned = p.uniform(-0.3, 0.8), p.normal(0.0, 0.4, -0.8, 0.8)
        roll, splay = p.normal(0.0, 0.15, -0.4, 0.4), p.normal(0.1, 0.25, -0.3, 0.8)
        angles = {
            "flexion": p.normal(0.1, 0.35, -0.6, 1.0),
            "bend": p.normal(0.0, 0.25, -0.6, 0.6),
            "twist": p.normal(0.0, 0.35, -0.8, 0.8),
        }
        for time_s in (p.time_s, p.time_s + hold_s):
            p.pelvis(
                time_s, height=height, left=left, turn=turned, pitch=pitch, roll=roll, forward=-0.12 * pitch
            )
            p.trunk(time_s, **angles)
            if one_leg:
                p.foot(side, time_s, lift_m=lift_m, pitch=foot_pitch, freedom=1.0, splay=splay)
            p.feet[opposite(side)] = stance
            p.foot(opposite(side), time_s, splay=splay)
        p.time_s += hold_s
        if one_leg:
            p.feet[side] = home
            p.time_s += p.seconds(0.4, 0.8)
            p.foot(side, p.time_s)
    p.time_s += 0.7
    p.stand(p.time_s - 0.4, p.time_s)


def _move_seated_foot(p: Performer, side: Side, hold_s: float, pelvis_m: float, on_floor: bool) -> None:
    """One of the things seated people do with a leg, done by the end of `hold_s`."""
    other = p.feet[opposite(side)]
    start_s, end_s = p.time_s, p.time_s + min(hold_s, p.seconds(0.5, 0.9))
    p.foot(side, start_s)
    knee_m = 0.36  # in front of the pelvis
    kind = p.uniform(0.0, 1.0)
    if on_floor:
        crossed = kind < 0.4
        p.feet[side] = (
            p.footing(side, outward=-0.05, forward=p.uniform(0.25, 0.4))
            if crossed
            else p.footing(side, outward=p.uniform(0.05, 0.3), forward=p.uniform(0.45, 0.85))
        )
        p.foot(side, end_s, splay=0.9 if crossed else 0.15, pitch=-0.3, freedom=0.5)
    elif kind < 0.15:  # ankle on the other knee
        p.feet[side] = p.footing(side, outward=-0.16, forward=knee_m, toe_out=0.5)
        p.foot(side, end_s, lift_m=pelvis_m - 0.02, splay=0.9, freedom=1.0)
    elif kind < 0.35:  # swinging
        for share, forward in ((0.0, 0.55), (0.33, 0.25), (0.66, 0.55), (1.0, 0.3)):
            p.feet[side] = p.footing(side, forward=forward)
            p.foot(side, end_s + share * 1.6, lift_m=0.06 + 0.3 * abs(forward - 0.35), freedom=1.0)
        p.feet[side] = p.footing(side, forward=knee_m)
        p.foot(side, end_s + 2.2)
    elif kind < 0.45:  # crossed at the ankles
        p.feet[side] = replace(other, yaw=p.heading)
        p.feet[side] = p.footing(side, outward=-0.04, forward=p.uniform(0.4, 0.6))
        p.foot(side, end_s, lift_m=0.04, splay=0.2)
    else:
        p.feet[side] = p.footing(
            side, outward=p.uniform(0.04, 0.28), forward=p.normal(knee_m + 0.03, 0.14, 0.1, 0.75)
        )
        heel = p.uniform(0.2, 0.7) if p.chance(0.25) else 0.0
        p.foot(side, end_s, pitch=heel, splay=p.normal(0.1, 0.15, -0.2, 0.5))


def _one_jump(
    p: Performer,
    *,
    flight_s: float,
    crouch: float,
    down_s: float,
    forward_m: float,
    turn: float,
    tuck_m: float,
    half_width_m: float,
) -> None:
    bent = 1 - crouch
    p.time_s += down_s
    p.pelvis(p.time_s, height=crouch, forward=-0.1 * bent, pitch=p.uniform(0.5, 1.5) * bent)
    p.trunk(p.time_s, flexion=p.uniform(0.3, 1.2) * bent)
    for side in SIDES:
        p.foot(side, p.time_s, splay=p.posture.splay + 0.3 * bent)
    p.time_s += 0.16 + 0.5 * bent  # pushing off
    toe_off_m = 1.04 * STANDING_PELVIS_HEIGHT_M
    start = {side: p.feet[side] for side in SIDES}
    origin, heading = (p.x, p.y), p.heading
    x_end, y_end = p.place(forward=forward_m)
    # Takeoff and landing have the pelvis at one height, so the flight is half rise, half fall.
    for number in range(9):
        share = number / 8
        time_s = p.time_s + share * flight_s
        rise_m = 0.5 * GRAVITY_M_PER_S2 * flight_s**2 * share * (1 - share)
        p.x, p.y = origin[0] + share * (x_end - origin[0]), origin[1] + share * (y_end - origin[1])
        p.heading = heading + turn * share
        airborne = math.sin(math.pi * share)
        p.pelvis(time_s, height_m=toe_off_m + rise_m, pitch=p.posture.pelvis_pitch + 0.8 * tuck_m * airborne)
        for side in SIDES:
            end = p.footing(side, outward=half_width_m, forward=-0.02 * (1 - share))
            p.feet[side] = replace(
                end,
                x=start[side].x + share * (end.x - start[side].x),
                y=start[side].y + share * (end.y - start[side].y),
                yaw=start[side].yaw + share * (end.yaw - start[side].yaw),
            )
            p.foot(
                side,
                time_s,
                lift_m=rise_m + tuck_m * airborne,
                pitch=0.75 - 0.3 * share,
                freedom=0.6 * airborne,
            )
    p.trunk(p.time_s, flexion=-0.05)
    p.trunk(p.time_s + flight_s, flexion=0.3 * bent)
    p.time_s += flight_s
    for side in SIDES:
        p.foot(side, p.time_s + 0.08)
    p.time_s += 0.15 + 0.4 * bent
    p.pelvis(p.time_s, height=0.5 + 0.5 * crouch, pitch=p.uniform(0.3, 1.0) * bent)
    p.trunk(p.time_s, flexion=p.uniform(0.2, 0.8) * bent)
    for side in SIDES:
        p.foot(side, p.time_s)
