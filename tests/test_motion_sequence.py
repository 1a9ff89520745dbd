"""Motion files: every AMASS layout read back, every kind of broken file refused in one sentence, resampling."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.motion.sequence import (
    MotionSequence,
    find_motion_files,
    read_motion_npz,
    resample,
    write_motion_npz,
)

SHARED_MOTION = Path(__file__).resolve().parents[1].parent / "shared" / "motion"
NUM_FRAMES = 7


def smpl_arrays(rng: np.random.Generator, num_frames: int = NUM_FRAMES) -> dict[str, Any]:
    return {
        "poses": rng.normal(scale=0.3, size=(num_frames, 72)).astype(np.float32),
        "trans": rng.normal(scale=0.1, size=(num_frames, 3)),
        "betas": rng.normal(size=10),
        "gender": np.array("female"),
        "mocap_framerate": np.array(120.0),
    }


def smpl_h_arrays(rng: np.random.Generator) -> dict[str, Any]:
    return {
        **smpl_arrays(rng),
        "poses": rng.normal(scale=0.3, size=(NUM_FRAMES, 156)),
        "betas": rng.normal(size=16),
        "dmpls": rng.normal(size=(NUM_FRAMES, 8)),
    }


def smpl_x_arrays(rng: np.random.Generator) -> dict[str, Any]:
    poses = rng.normal(scale=0.3, size=(NUM_FRAMES, 165))
    return {
        "gender": np.array("neutral"),
        "surface_model_type": np.array("smplx"),
        "mocap_frame_rate": np.array(60.0),
        "mocap_time_length": np.array(NUM_FRAMES / 60),
        "trans": rng.normal(scale=0.1, size=(NUM_FRAMES, 3)),
        "poses": poses,
        "betas": rng.normal(size=16),
        "num_betas": np.array(16),
        "root_orient": poses[:, :3],
        "pose_body": poses[:, 3:66],
        "pose_hand": poses[:, 75:],
    }


def a_sequence(rng: np.random.Generator, num_frames: int = 31, fps: float = 60.0) -> MotionSequence:
    return MotionSequence(
        poses_rotvec=rng.normal(scale=0.4, size=(num_frames, 24, 3)).astype(np.float32),
        translation_world_m=rng.normal(scale=0.1, size=(num_frames, 3)).astype(np.float32),
        betas=rng.normal(size=10).astype(np.float32),
        gender="male",
        fps=fps,
        name="a_walk",
        subject="somebody",
        label="walking — and turning",
    )


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.skipif(not SHARED_MOTION.is_dir(), reason="no motion beside the checkout")
def test_recorded_motion_in_other_units_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for number, source in enumerate(find_motion_files(SHARED_MOTION, "val")):
        arrays = dict(np.load(source))
        for key, factor, unit in (("poses", 180 / np.pi, "radians"), ("trans", 1000, "metres")):
            speed = np.linalg.norm(np.diff(arrays["trans"], axis=0), axis=-1) * arrays["mocap_framerate"]
            if number % 8 or (key == "trans" and np.median(speed) < 0.06):  # who stands still may be anything
                continue
            np.savez(path, **{**arrays, key: factor * arrays[key]})
            with pytest.raises(ValueError, match=rf"a\.npz holds '{key}' .*{unit}"):
                read_motion_npz(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"trans": 40.0 * np.arange(NUM_FRAMES)[:, None] * [1, 0, 0]}, "moves by 4.8e"),
        ({"trans": np.full((NUM_FRAMES, 3), 900.0)}, "lies 1.56e"),
        ({"poses": np.full((NUM_FRAMES, 72), 20.0)}, "turn by 34.6 or more; axis-angles in radians"),
        ({"poses": np.full((NUM_FRAMES, 72), 1e300)}, "axis-angles in radians"),
    ],
)
def test_units_that_cannot_be_are_refused(
    tmp_path: Path, rng: np.random.Generator, changes: dict[str, Any], problem: str
) -> None:
    np.savez(tmp_path / "a.npz", **smpl_arrays(rng) | changes)
    with pytest.raises(ValueError, match=problem):
        read_motion_npz(tmp_path / "a.npz")


def test_turning_jumping_and_single_frames_are_accepted(tmp_path: Path, rng: np.random.Generator) -> None:
    spinning = np.zeros((NUM_FRAMES, 72))
    spinning[:, 2] = 100 * np.arange(NUM_FRAMES)  # of the root, many whole turns
    fallen = np.zeros((NUM_FRAMES, 3))
    fallen[4:] = 500.0  # tracking that was lost once
    for changes in (
        {"poses": spinning},
        {"trans": fallen},
        {"poses": np.zeros((1, 72)), "trans": np.array([[3.0, -400.0, 1.0]])},
    ):
        np.savez(tmp_path / "a.npz", **smpl_arrays(rng) | changes)
        assert read_motion_npz(tmp_path / "a.npz").num_frames in (1, NUM_FRAMES)


def test_smpl_layout(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = smpl_arrays(rng)
    np.savez(tmp_path / "walk_poses.npz", **arrays)
    sequence = read_motion_npz(tmp_path / "walk_poses.npz")
    np.testing.assert_array_equal(sequence.poses_rotvec, arrays["poses"].reshape(NUM_FRAMES, 24, 3))
    np.testing.assert_array_equal(sequence.translation_world_m, arrays["trans"].astype(np.float32))
    assert sequence.poses_rotvec.dtype == sequence.betas.dtype == np.float32
    assert (sequence.fps, sequence.gender, sequence.name) == (120.0, "female", "walk_poses")
    assert sequence.subject == tmp_path.name
    assert sequence.num_frames == NUM_FRAMES
    assert sequence.duration_s == pytest.approx(NUM_FRAMES / 120)


def test_smpl_h_layout_takes_the_index_fingers_as_hands(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = smpl_h_arrays(rng)
    np.savez(tmp_path / "a.npz", **arrays)
    sequence = read_motion_npz(tmp_path / "a.npz")
    joints = arrays["poses"].reshape(NUM_FRAMES, 52, 3).astype(np.float32)
    np.testing.assert_array_equal(sequence.poses_rotvec[:, :22], joints[:, :22])
    np.testing.assert_array_equal(sequence.poses_rotvec[:, 22], joints[:, 22])
    np.testing.assert_array_equal(sequence.poses_rotvec[:, 23], joints[:, 37])
    np.testing.assert_array_equal(sequence.betas, arrays["betas"][:10].astype(np.float32))


def test_smpl_x_layout_leaves_the_hands_at_rest(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = smpl_x_arrays(rng)
    np.savez(tmp_path / "a_stageii.npz", **arrays)
    sequence = read_motion_npz(tmp_path / "a_stageii.npz")
    joints = arrays["poses"].reshape(NUM_FRAMES, 55, 3).astype(np.float32)
    np.testing.assert_array_equal(sequence.poses_rotvec[:, :22], joints[:, :22])
    assert not sequence.poses_rotvec[:, 22:].any()
    assert sequence.fps == 60.0
    assert sequence.body_model == "smplx"


@pytest.mark.parametrize(
    ("stored", "gender"),
    [
        ("b'female'", "female"),
        (np.array("male"), "male"),
        (np.array(b"female"), "female"),
        (np.array(["MALE"]), "male"),
        ("neutral", "neutral"),
        ("unknown", "neutral"),
    ],
)
def test_gender_is_read_however_it_is_stored(
    tmp_path: Path, rng: np.random.Generator, stored: Any, gender: str
) -> None:
    np.savez(tmp_path / "a.npz", **{**smpl_arrays(rng), "gender": stored})
    assert read_motion_npz(tmp_path / "a.npz").gender == gender


def test_optional_arrays_have_defaults(tmp_path: Path, rng: np.random.Generator) -> None:
    arrays = smpl_arrays(rng)
    np.savez(tmp_path / "a.npz", **{key: arrays[key] for key in ("poses", "trans", "mocap_framerate")})
    sequence = read_motion_npz(tmp_path / "a.npz")
    assert not sequence.betas.any()
    assert (sequence.gender, sequence.label) == ("neutral", "")
    assert (sequence.body_model, sequence.first_frame) == ("smpl", 0)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"poses": None}, "lacks 'poses'"),
        ({"trans": None}, "lacks 'trans'"),
        ({"mocap_framerate": None}, "names no frame rate"),
        ({"poses": np.zeros((NUM_FRAMES, 63))}, r"shape \(7, 63\)"),
        ({"poses": np.zeros((NUM_FRAMES, 24, 3))}, r"shape \(7, 24, 3\)"),
        ({"poses": np.zeros((0, 72)), "trans": np.zeros((0, 3))}, "zero frames"),
        ({"trans": np.zeros((NUM_FRAMES - 1, 3))}, r"'trans' of shape \(6, 3\)"),
        ({"poses": np.full((NUM_FRAMES, 72), np.nan)}, "not finite"),
        ({"trans": np.full((NUM_FRAMES, 3), np.inf)}, "not finite"),
        ({"betas": np.zeros(3)}, r"'betas' of shape \(3,\)"),
        ({"mocap_framerate": np.array(0.0)}, "one number of frames a second"),
        ({"mocap_framerate": np.array(1e-300)}, r"= 1e-300; it must be one number .* 0\.01 to 10000"),
        ({"mocap_framerate": np.array([30.0, 60.0])}, "one number of frames a second"),
        ({"betas": np.full(10, 1e30)}, "nobody's shape"),
        (
            {"trans": np.outer(np.arange(NUM_FRAMES) == 3, [5e5, 0, 0])},
            r"a frame 5e\+05 m away from the origin",
        ),
        ({"poses": np.array([["x"] * 72])}, "array of numbers"),
    ],
)
def test_bad_contents_are_refused_by_name(
    tmp_path: Path, rng: np.random.Generator, change: dict[str, Any], complaint: str
) -> None:
    arrays = {key: value for key, value in {**smpl_arrays(rng), **change}.items() if value is not None}
    path = tmp_path / "broken.npz"
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=complaint) as error:
        read_motion_npz(path)
    assert str(path) in str(error.value)


def test_object_arrays_are_refused_only_where_they_are_needed(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    np.savez(tmp_path / "labels.npz", **smpl_arrays(rng), labels_obs=objects)
    assert read_motion_npz(tmp_path / "labels.npz").num_frames == NUM_FRAMES
    np.savez(tmp_path / "poses.npz", **{**smpl_arrays(rng), "poses": objects})
    with pytest.raises(ValueError, match="pickle"):
        read_motion_npz(tmp_path / "poses.npz")


@pytest.mark.parametrize("keep", [0, 1, 100, 2000, -30])
def test_truncated_archives_are_refused(tmp_path: Path, rng: np.random.Generator, keep: int) -> None:
    np.savez_compressed(tmp_path / "whole.npz", **smpl_arrays(rng))
    path = tmp_path / "cut.npz"
    path.write_bytes((tmp_path / "whole.npz").read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cut\.npz"):
        read_motion_npz(path)


def test_damage_inside_the_archive_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "flipped.npz"
    np.savez(path, **smpl_arrays(rng))
    content = bytearray(path.read_bytes())
    content[600:620] = bytes(20)  # within the data of `poses`, which comes first; the directory stays whole
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged at 'poses'"):
        read_motion_npz(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "bare.npy", np.zeros((3, 72)))
    with pytest.raises(ValueError, match="bare array"):
        read_motion_npz(tmp_path / "bare.npy")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(ValueError, match="cannot be read"):
        read_motion_npz(tmp_path / "text.npz")
    with pytest.raises(FileNotFoundError):
        read_motion_npz(tmp_path / "absent.npz")


def test_write_and_read_round_trip(tmp_path: Path, rng: np.random.Generator) -> None:
    sequence = a_sequence(rng)
    path = tmp_path / "new" / "a_walk.npz"
    write_motion_npz(path, sequence)
    back = read_motion_npz(path)
    for name in ("poses_rotvec", "translation_world_m", "betas"):
        np.testing.assert_array_equal(getattr(back, name), getattr(sequence, name))
    for name in ("gender", "fps", "name", "subject", "label", "body_model", "first_frame"):
        assert getattr(back, name) == getattr(sequence, name)
    assert [entry.name for entry in path.parent.iterdir()] == ["a_walk.npz"]


def test_a_failed_write_keeps_the_old_file(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.npz"
    write_motion_npz(path, a_sequence(rng))
    before = path.read_bytes()

    def fail(*arguments: Any, **named: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        write_motion_npz(path, a_sequence(rng, num_frames=5))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_find_motion_files(tmp_path: Path) -> None:
    for name in ("train/b/2.npz", "train/b/1_stageii.npz", "train/a.npz", "train/shape.npz", "val/c.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "train/b/male_stagei.npz").touch()
    (tmp_path / "train/notes.txt").touch()
    names = [path.relative_to(tmp_path).as_posix() for path in find_motion_files(tmp_path, "train")]
    assert names == ["train/a.npz", "train/b/1_stageii.npz", "train/b/2.npz"]
    assert len(find_motion_files(tmp_path, None)) == 4


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    for name in ("disk/CMU/01/a.npz", "disk/SSM/b.npz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "root/train").mkdir(parents=True)
    (tmp_path / "root/train/CMU").symlink_to(tmp_path / "disk/CMU")
    (tmp_path / "root/test").symlink_to(tmp_path / "disk/SSM")
    (tmp_path / "disk/CMU/01/back").symlink_to(tmp_path / "root")  # a circle
    root = tmp_path / "root"
    assert [path.relative_to(root).as_posix() for path in find_motion_files(root, "test")] == ["test/b.npz"]
    files = [path.relative_to(root / "train").as_posix() for path in find_motion_files(root, "train")]
    assert files == ["CMU/01/a.npz", "CMU/01/back/test/b.npz"]
    assert len(find_motion_files(root, None)) == 2


def test_find_motion_files_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="holds no motion"):
        find_motion_files(tmp_path, "train")
    with pytest.raises(ValueError, match="holds the folders train"):
        find_motion_files(tmp_path, "test")
    with pytest.raises(ValueError, match="There is no folder"):
        find_motion_files(tmp_path / "absent", "test")


def test_resample_to_an_equal_rate_changes_nothing(rng: np.random.Generator) -> None:
    sequence = a_sequence(rng)
    assert resample(sequence, 60.0) is sequence


@pytest.mark.parametrize(
    ("fps", "num_frames"), [(30.0, 16), (20.0, 11), (120.0, 61), (25.0, 13), (59.94, 30)]
)
def test_resample_keeps_the_duration(rng: np.random.Generator, fps: float, num_frames: int) -> None:
    resampled = resample(a_sequence(rng), fps)
    assert resampled.num_frames == num_frames
    assert resampled.fps == fps
    assert resampled.poses_rotvec.dtype == np.float32
    assert (num_frames - 1) / fps <= 30 / 60 + 1e-9


def test_resample_to_a_divisor_takes_every_nth_frame(rng: np.random.Generator) -> None:
    sequence = a_sequence(rng)
    resampled = resample(sequence, 20.0)
    np.testing.assert_allclose(resampled.poses_rotvec, sequence.poses_rotvec[::3], atol=1e-6)
    np.testing.assert_allclose(resampled.translation_world_m, sequence.translation_world_m[::3], atol=1e-6)


def test_resample_turns_at_constant_speed_the_short_way_round(rng: np.random.Generator) -> None:
    """Slerp against its closed form: a joint that turns about one axis, across the rotation vector's jump at pi."""
    sequence = a_sequence(rng, num_frames=2, fps=1.0)
    axis = np.array([0.6, 0.0, 0.8])
    poses = np.zeros((2, 24, 3), np.float32)
    poses[0, 5], poses[1, 5] = 3.0 * axis, -3.0 * axis  # 3.0 to 2 pi - 3.0 about the axis
    sequence = MotionSequence(**{**vars(sequence), "poses_rotvec": poses})
    resampled = resample(sequence, 4.0)
    assert resampled.num_frames == 5
    angles = resampled.poses_rotvec[:, 5] @ axis % (2 * np.pi)
    np.testing.assert_allclose(angles, np.linspace(3.0, 2 * np.pi - 3.0, 5), atol=1e-5)
    middle = sequence.translation_world_m.mean(axis=0)
    np.testing.assert_allclose(resampled.translation_world_m[2], middle, atol=1e-6)


def test_resample_one_frame_and_bad_rates(rng: np.random.Generator) -> None:
    sequence = a_sequence(rng, num_frames=1)
    np.testing.assert_allclose(resample(sequence, 25.0).poses_rotvec, sequence.poses_rotvec, atol=1e-6)
    for fps in (0.0, -30.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="positive rate"):
            resample(sequence, fps)


@pytest.mark.skipif(not SHARED_MOTION.is_dir(), reason="no recorded motion at hand (shared/motion)")
def test_recorded_motion_is_read() -> None:
    files = find_motion_files(SHARED_MOTION, "val")
    sequences = [read_motion_npz(path) for path in files]
    assert all(sequence.fps == 30.0 for sequence in sequences)
    standing = next(sequence for sequence in sequences if "idle" in sequence.label)
    assert 0.7 < np.median(standing.translation_world_m[:, 2]) < 1.1  # metres, z up
