"""Procedural motion: reproducible, anatomical, smooth and on the floor; its parts against naive twins."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from core.motion.gestures import GESTURES
from core.motion.joint_limits import LOWER_LIMITS, UPPER_LIMITS, clamp_to_joint_limits, limited_angles
from core.motion.performer import Performer, random_posture
from core.motion.procedural import ACTIVITIES, procedural_motion
from core.motion.sequence import MotionSequence
from core.motion.stances import GRAVITY_M_PER_S2, jump
from core.motion.timeline import TRACKS, Timeline
from core.motion.whole_body_ik import (
    ARM_LENGTH_M,
    BALL_M,
    HEEL_M,
    NOMINAL_OFFSETS_M,
    R_WORLD_REST,
    STANDING_PELVIS_HEIGHT_M,
    TOE_FROM_BALL_M,
    FootTarget,
    HandTarget,
    TrunkAngles,
    WholeBodyTarget,
    ankle_position,
    sole_heights,
    solve_whole_body,
)

SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
NUM_FRAMES, FPS = 120, 30.0


@pytest.fixture(scope="module")
def by_activity() -> dict[str, list[MotionSequence]]:
    """A few sequences of every single activity, and of all mixed under the key ""."""
    made = {
        name: procedural_motion(num_sequences=3, num_frames=NUM_FRAMES, fps=FPS, seed=5, activities=[name])
        for name in ACTIVITIES
    }
    made[""] = procedural_motion(num_sequences=16, num_frames=NUM_FRAMES, fps=FPS, seed=6)
    return made


@pytest.fixture(scope="module")
def everything(by_activity: dict[str, list[MotionSequence]]) -> list[MotionSequence]:
    return [sequence for sequences in by_activity.values() for sequence in sequences]


def rotmats(sequence: MotionSequence) -> np.ndarray:
    flat = Rotation.from_rotvec(sequence.poses_rotvec.reshape(-1, 3).astype(np.float64)).as_matrix()
    return flat.reshape(-1, 24, 3, 3)


def joints_and_rotations(sequence: MotionSequence) -> tuple[np.ndarray, np.ndarray]:
    """Forward kinematics of the nominal skeleton, joint by joint."""
    local = rotmats(sequence)
    joints, rotations = np.empty((len(local), 24, 3)), np.empty_like(local)
    joints[:, 0], rotations[:, 0] = sequence.translation_world_m, local[:, 0]
    for joint, parent in enumerate(SMPL_PARENTS[1:], start=1):
        joints[:, joint] = joints[:, parent] + rotations[:, parent] @ NOMINAL_OFFSETS_M[joint]
        rotations[:, joint] = rotations[:, parent] @ local[:, joint]
    return joints, rotations


def heights_of_soles(sequence: MotionSequence) -> np.ndarray:
    return sole_heights(rotmats(sequence), sequence.translation_world_m)


def angular_velocity(sequence: MotionSequence) -> np.ndarray:
    """rad/s in the frame of each joint, (T - 1, 24, 3)."""
    local = rotmats(sequence)
    step = np.swapaxes(local[:-1], -1, -2) @ local[1:]
    return Rotation.from_matrix(step.reshape(-1, 3, 3)).as_rotvec().reshape(-1, 24, 3) * sequence.fps


def test_shapes_and_types() -> None:
    sequences = procedural_motion(num_sequences=3, num_frames=17, fps=25.0, seed=1)
    assert len(sequences) == 3
    for sequence in sequences:
        assert sequence.poses_rotvec.shape == (17, 24, 3)
        assert sequence.translation_world_m.shape == (17, 3)
        assert sequence.betas.shape == (10,)
        arrays = (sequence.poses_rotvec, sequence.translation_world_m, sequence.betas)
        assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
        assert sequence.fps == 25.0
    assert len({sequence.name for sequence in sequences}) == 3


def test_one_frame_is_enough() -> None:
    assert procedural_motion(num_sequences=1, num_frames=1, fps=30.0, seed=0)[0].num_frames == 1


def test_the_seed_decides_everything() -> None:
    first = procedural_motion(num_sequences=18, num_frames=20, fps=FPS, seed=7)
    again = procedural_motion(num_sequences=18, num_frames=20, fps=FPS, seed=7)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.poses_rotvec, other.poses_rotvec)
        np.testing.assert_array_equal(one.translation_world_m, other.translation_world_m)
        np.testing.assert_array_equal(one.betas, other.betas)
        assert one.label == other.label
    other_seed = procedural_motion(num_sequences=1, num_frames=20, fps=FPS, seed=8)[0]
    assert np.abs(other_seed.poses_rotvec - first[0].poses_rotvec).max() > 0.1
    assert np.abs(first[1].poses_rotvec - first[0].poses_rotvec).max() > 0.1


def test_a_longer_list_begins_with_the_shorter() -> None:
    short = procedural_motion(num_sequences=2, num_frames=20, fps=FPS, seed=7)
    long = procedural_motion(num_sequences=18, num_frames=20, fps=FPS, seed=7)
    for one, other in zip(short, long, strict=False):
        np.testing.assert_allclose(one.poses_rotvec, other.poses_rotvec, atol=1e-6)


def test_the_rate_only_samples_the_same_motion() -> None:
    """Smoothing is set in seconds: at another rate the same person does the same."""
    slow = procedural_motion(num_sequences=1, num_frames=60, fps=30.0, seed=3, activities=["walk"])[0]
    fast = procedural_motion(num_sequences=1, num_frames=120, fps=60.0, seed=3, activities=["walk"])[0]
    assert fast.label == slow.label
    apart = np.linalg.norm(joints_and_rotations(fast)[0][::2] - joints_and_rotations(slow)[0], axis=-1)
    assert apart[5:-5].mean() < 0.05  # the random sway is another


def test_every_activity_and_gesture_is_seen() -> None:
    sequences = procedural_motion(num_sequences=80, num_frames=30, fps=5.0, seed=2)
    legs = {name for sequence in sequences for name in sequence.label.split(" | ")[0].split(", ")}
    arms = {name for sequence in sequences for name in sequence.label.split(" | ")[1].split(", ")}
    assert legs == set(ACTIVITIES)
    assert arms == set(GESTURES)


@pytest.mark.parametrize(
    "change", [{"num_sequences": 0}, {"num_frames": 0}, {"fps": 0.0}, {"fps": float("nan")}]
)
def test_bad_sizes_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least one sequence"):
        procedural_motion(**{"num_sequences": 1, "num_frames": 1, "fps": 30.0, "seed": 0, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("activities", [["walk", "swim"], []])
def test_unknown_activities_are_refused(activities: list[str]) -> None:
    with pytest.raises(ValueError, match="choose from idle"):
        procedural_motion(num_sequences=1, num_frames=1, fps=30.0, seed=0, activities=activities)


def test_joint_limits_hold(everything: list[MotionSequence]) -> None:
    angles = np.concatenate([limited_angles(sequence.poses_rotvec) for sequence in everything])[:, 1:]
    assert (angles >= LOWER_LIMITS[1:] - 1e-4).all()
    assert (angles <= UPPER_LIMITS[1:] + 1e-4).all()


def test_knees_and_elbows_bend_one_way(everything: list[MotionSequence]) -> None:
    """Seen from outside: shins never in front of the thigh's line, forearms never behind the upper arm's."""
    for sequence in everything:
        joints, rotations = joints_and_rotations(sequence)
        for hip, knee, ankle in ((1, 4, 7), (2, 5, 8)):
            thigh = joints[:, knee] - joints[:, hip]
            shin = joints[:, ankle] - joints[:, knee]
            forward = rotations[:, hip, :, 2]
            ahead = np.sum(shin * forward, -1) / np.linalg.norm(shin, axis=-1)
            ahead -= np.sum(thigh * forward, -1) / np.linalg.norm(thigh, axis=-1)
            assert ahead.max() < np.radians(4)
        flexion = np.stack([-sequence.poses_rotvec[:, 18, 1], sequence.poses_rotvec[:, 19, 1]])
        assert flexion.min() > -0.13  # the rest pose itself is bent by about 0.1 rad


def test_motion_is_smooth(everything: list[MotionSequence]) -> None:
    velocity = np.concatenate([angular_velocity(sequence) for sequence in everything])
    acceleration = np.concatenate(
        [np.diff(angular_velocity(sequence), axis=0) * sequence.fps for sequence in everything]
    )
    speeds = np.linalg.norm(velocity, axis=-1)
    assert speeds.max() < 30  # rad/s; recorded motion reaches about that
    assert np.percentile(speeds, 99.9) < 15
    assert np.linalg.norm(acceleration, axis=-1).max() < 900
    pelvis = [np.diff(sequence.translation_world_m, axis=0) * sequence.fps for sequence in everything]
    assert max(np.linalg.norm(each, axis=-1).max() for each in pelvis) < 6  # m/s
    jolt = [np.diff(each, axis=0) * FPS for each in pelvis]
    assert max(np.linalg.norm(each, axis=-1).max() for each in jolt) < 60  # m/s2


@pytest.mark.parametrize("name", [name for name in ACTIVITIES if name not in ("jump", "climb", "run", "sit")])
def test_someone_stands_on_the_floor(by_activity: dict[str, list[MotionSequence]], name: str) -> None:
    lowest = np.concatenate([heights_of_soles(sequence).min(axis=-1) for sequence in by_activity[name]])
    assert lowest.min() > -0.01
    assert np.percentile(lowest, 98) < 0.06
    assert np.median(np.abs(lowest)) < 0.015


@pytest.mark.parametrize("name", ["jump", "run"])
def test_who_leaves_the_floor_comes_back(by_activity: dict[str, list[MotionSequence]], name: str) -> None:
    lowest = np.concatenate([heights_of_soles(sequence).min(axis=-1) for sequence in by_activity[name]])
    assert lowest.min() > -0.01
    assert lowest.max() > (0.15 if name == "jump" else 0.04)
    assert np.percentile(lowest, 40) < 0.03


def test_a_jump_is_ballistic() -> None:
    """Between takeoff and landing the pelvis falls freely."""
    rng = np.random.default_rng(0)
    performer = Performer(rng=rng, posture=random_posture(rng), heading=0.0)
    jump(performer, 1.0)
    for track in ("trunk_gesture", "head", "left_hand", "right_hand"):
        performer.timeline.key(track, 0.0, (0.0,) * len(TRACKS[track]))
    times_s = np.arange(0, performer.time_s, 1e-3)
    height = performer.timeline.sample(times_s)["pelvis"][:, 2]
    airborne = height > 1.05 * STANDING_PELVIS_HEIGHT_M
    assert airborne.any()
    start = int(np.argmax(airborne))
    end = start + int(np.argmin(airborne[start:]))
    fit = np.polyfit(times_s[start:end], height[start:end], 2)
    assert 2 * fit[0] == pytest.approx(-GRAVITY_M_PER_S2, rel=0.15)


def test_planted_feet_stay(by_activity: dict[str, list[MotionSequence]]) -> None:
    for name in ("idle", "squat", "bend"):
        for sequence in by_activity[name]:
            joints, _ = joints_and_rotations(sequence)
            for side, ball in enumerate((10, 11)):
                planted = heights_of_soles(sequence)[:, side] < 0.003
                speed = np.linalg.norm(np.diff(joints[:, ball, :2], axis=0), axis=-1) * sequence.fps
                assert np.median(speed[planted[1:] & planted[:-1]]) < 0.02


def test_walkers_get_ahead_with_arms_against_legs() -> None:
    sequences = procedural_motion(
        num_sequences=24, num_frames=NUM_FRAMES, fps=FPS, seed=9, activities=["walk"]
    )
    walkers = [sequence for sequence in sequences if sequence.label == "walk | swing"]
    assert len(walkers) >= 2
    correlations = []
    for sequence in walkers:
        joints, rotations = joints_and_rotations(sequence)
        way = np.linalg.norm(np.diff(joints[:, 0, :2], axis=0), axis=-1).sum()
        assert 0.25 < way / sequence.duration_s < 3  # m/s
        forward = rotations[:, 0, :, 2]
        left_leg_ahead = np.sum((joints[:, 7] - joints[:, 8]) * forward, axis=-1)
        left_hand_ahead = np.sum((joints[:, 20] - joints[:, 21]) * forward, axis=-1)
        correlations.append(np.corrcoef(left_leg_ahead, left_hand_ahead)[0, 1])
    assert np.median(correlations) < -0.6


def test_poses_spread_as_people_spread(by_activity: dict[str, list[MotionSequence]]) -> None:
    """Wide enough to learn from: sitting and standing knees, hanging and raised arms, all headings."""
    sequences = procedural_motion(num_sequences=80, num_frames=24, fps=4.0, seed=4)
    poses = np.concatenate([sequence.poses_rotvec for sequence in sequences])
    knee, elbow = poses[:, 4, 0], -poses[:, 18, 1]
    assert np.percentile(knee, 10) < 0.2
    assert np.percentile(knee, 95) > 1.4
    assert np.percentile(elbow, 10) < 0.4
    assert np.percentile(elbow, 90) > 1.5
    joints = np.concatenate([joints_and_rotations(sequence)[0] for sequence in sequences])
    raised = (joints[:, 18, 2] - joints[:, 16, 2]) / 0.26
    assert np.percentile(raised, 20) < -0.7
    assert np.percentile(raised, 97) > 0.3
    forward = np.concatenate([rotmats(sequence)[:, 0, :, 2] for sequence in sequences])
    assert np.abs(forward[:, :2].mean(axis=0)).max() < 0.25
    betas = np.stack([sequence.betas for sequence in sequences])
    assert 0.8 < betas.std() < 1.1
    assert np.abs(betas).max() <= 2.5
    # Left and right are alike.
    mirrored = poses[:, [2, 5, 17, 19]] * [1, -1, -1]
    np.testing.assert_allclose(poses[:, [1, 4, 16, 18]].std(0), mirrored.std(0), atol=0.15)


def random_target(rng: np.random.Generator, batch: tuple[int, ...]) -> WholeBodyTarget:
    def draw(scale: float) -> np.ndarray:
        return rng.normal(scale=scale, size=batch)

    feet, hands = [], []
    for outward in (1.0, -1.0):
        position = np.stack([draw(0.15), outward * 0.1 + draw(0.03), np.abs(draw(0.1))], axis=-1)
        feet.append(FootTarget(position, draw(0.2), draw(0.2), np.zeros(batch), draw(0.1)))
        reach = np.array([0.1, -0.1, 0.3]) + rng.normal(scale=0.06, size=(*batch, 3))
        hands.append(HandTarget(reach, draw(0.2), np.zeros(batch), draw(0.3), draw(0.2), draw(0.1)))
    pelvis = np.stack([draw(0.05), draw(0.05), 0.8 + draw(0.03)], axis=-1)
    return WholeBodyTarget(
        pelvis,
        draw(0.1),
        draw(0.1),
        draw(0.05),
        TrunkAngles(draw(0.2), draw(0.1), draw(0.2)),
        TrunkAngles(draw(0.2), draw(0.1), draw(0.3)),
        feet[0],
        feet[1],
        hands[0],
        hands[1],
    )


@pytest.mark.parametrize("batch", [(1,), (5,), (4, 3)])
def test_inverse_kinematics_reaches_its_targets(batch: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    target = random_target(rng, batch)
    rotmat = solve_whole_body(target, np.broadcast_to(np.array([0.4, 0.3, 0.3]), (*batch, 3)))
    assert rotmat.shape == (*batch, 24, 3, 3)
    np.testing.assert_allclose(
        rotmat @ np.swapaxes(rotmat, -1, -2), np.broadcast_to(np.eye(3), rotmat.shape), atol=1e-9
    )
    flat = rotmat.reshape(-1, 24, 3, 3)
    joints, rotations = np.empty((len(flat), 24, 3)), np.empty_like(flat)
    joints[:, 0], rotations[:, 0] = target.pelvis_m.reshape(-1, 3), flat[:, 0]
    for joint, parent in enumerate(SMPL_PARENTS[1:], start=1):
        joints[:, joint] = joints[:, parent] + rotations[:, parent] @ NOMINAL_OFFSETS_M[joint]
        rotations[:, joint] = rotations[:, parent] @ flat[:, joint]
    for side, (foot, hand) in enumerate(
        ((target.left_foot, target.left_hand), (target.right_foot, target.right_hand))
    ):
        outward = 1.0 - 2.0 * side
        ankle = ankle_position(foot, outward).reshape(-1, 3)
        np.testing.assert_allclose(joints[:, 7 + side], ankle, atol=4e-3)
        # The hand is given from the shoulder of a girdle at rest, in the chest's frame.
        shoulder = NOMINAL_OFFSETS_M[13 + side] + NOMINAL_OFFSETS_M[16 + side]
        in_chest = np.einsum("nji,nj->ni", rotations[:, 9], joints[:, 20 + side] - joints[:, 9]) - shoulder
        reached = in_chest * np.array([outward, 1.0, 1.0])
        wanted = hand.position_m.reshape(-1, 3)
        free = np.linalg.norm(wanted, axis=-1) < 0.85 * ARM_LENGTH_M
        np.testing.assert_allclose(reached[free], wanted[free], atol=0.03)
    # Heights of the soles against the same skeleton, point by point.
    soles = sole_heights(rotmat, target.pelvis_m).reshape(-1, 2)
    for side, flip in ((0, np.ones(3)), (1, np.array([-1.0, 1.0, 1.0]))):
        points = [
            joints[:, 7 + side] + rotations[:, 7 + side] @ (flip * HEEL_M),
            joints[:, 7 + side] + rotations[:, 7 + side] @ (flip * BALL_M),
            joints[:, 10 + side] + rotations[:, 10 + side] @ (flip * TOE_FROM_BALL_M),
        ]
        np.testing.assert_allclose(
            soles[:, side], np.min([point[:, 2] for point in points], axis=0), atol=1e-9
        )


def test_a_standing_person_is_upright_and_symmetric() -> None:
    foot = [
        FootTarget(np.array([[0.0, y, 0.0]]), np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1))
        for y in (0.1, -0.1)
    ]
    zero = np.zeros(1)
    hand = HandTarget(np.array([[0.1, -0.45, 0.05]]), zero, zero, zero, zero, zero)
    none = TrunkAngles(zero, zero, zero)
    pelvis = np.array([[0.05, 0.0, STANDING_PELVIS_HEIGHT_M - 0.02]])
    target = WholeBodyTarget(pelvis, zero, zero, zero, none, none, foot[0], foot[1], hand, hand)
    rotmat = solve_whole_body(target, np.array([[0.4, 0.3, 0.3]]))[0]
    np.testing.assert_allclose(rotmat[0], R_WORLD_REST)
    np.testing.assert_allclose(rotmat[0] @ [0, 1, 0], [0, 0, 1], atol=1e-12)  # SMPL's up is the world's
    mirror = np.diag([-1.0, 1.0, 1.0])
    for left, right in ((1, 2), (4, 5), (7, 8), (13, 14), (16, 17), (18, 19), (20, 21)):
        np.testing.assert_allclose(mirror @ rotmat[left] @ mirror, rotmat[right], atol=1e-9)


def test_clamping_leaves_the_inside_and_bounds_the_outside() -> None:
    rng = np.random.default_rng(2)
    mild = rng.uniform(-0.05, 0.05, size=(6, 24, 3)) * (np.minimum(-LOWER_LIMITS, UPPER_LIMITS) > 0.11)
    mild[:, 0] = rng.normal(size=(6, 3))
    np.testing.assert_allclose(clamp_to_joint_limits(mild), mild, atol=1e-9)
    wild = rng.normal(scale=2.0, size=(4, 50, 24, 3))
    clamped = clamp_to_joint_limits(wild)
    np.testing.assert_array_equal(clamped[..., 0, :], wild[..., 0, :])
    angles = limited_angles(clamped)
    assert (angles >= LOWER_LIMITS - 1e-6).all()
    assert (angles <= UPPER_LIMITS + 1e-6).all()


def test_limits_are_mirror_images() -> None:
    for left, right in ((1, 2), (4, 5), (7, 8), (13, 14), (16, 17), (18, 19), (20, 21), (22, 23)):
        np.testing.assert_array_equal(
            LOWER_LIMITS[left] * [1, -1, -1], np.where([1, 0, 0], LOWER_LIMITS[right], UPPER_LIMITS[right])
        )


def test_timeline_rests_between_equal_keys_and_never_overshoots() -> None:
    timeline = Timeline()
    for track, channels in TRACKS.items():
        timeline.key(track, 0.0, (0.0,) * len(channels))
    for time_s, value in ((3.0, 2.0), (1.0, 0.0), (2.0, 2.0)):  # in any order
        timeline.key("head", time_s, (value, -value, 0.0))
    times_s = np.linspace(-1.0, 5.0, 601)
    head = timeline.sample(times_s)["head"]
    assert head.shape == (601, 3)
    np.testing.assert_array_equal(head[times_s <= 1.0, 0], 0.0)
    np.testing.assert_allclose(head[times_s >= 2.0, 0], 2.0, atol=1e-12)
    assert head[:, 0].min() >= 0
    assert head[:, 0].max() <= 2
    assert (np.diff(head[:, 0]) >= -1e-12).all()
    assert not timeline.sample(times_s)["left_foot"].any()
