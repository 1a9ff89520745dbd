"""The store of prepared lifting sequences, and the checks of what goes into it."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from lifting_archives import cameras, mpi_inf_3dhp, walking_m, write_3dhp

from core.datasets.array_store import is_finished, read_part, write_part
from core.datasets.camera_recovery import distort, recover_camera
from core.datasets.joint_checks import check_finite, check_in_picture, check_joints, check_order
from core.datasets.lifting_sequences import PreparedLifting
from core.datasets.preparation import fingerprint, prepare
from core.skeleton import H36M_17


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("3dhp")
    write_3dhp(root, *mpi_inf_3dhp())
    prepare("3dhp", root, root / "out", on_progress=lambda done, total: None, workers=1)
    return root / "out"


def test_sequences_are_memory_mapped(store: Path) -> None:
    for sequence in PreparedLifting(store).sequences("train"):
        for array in (sequence.keypoints_px, sequence.confidence, sequence.joints, sequence.valid):
            assert isinstance(array, np.memmap)
            assert len(array) == sequence.num_frames == 60
        assert sequence.keypoints_px.dtype == sequence.joints.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            sequence.joints[0] = 0


def test_a_missing_split_and_a_damaged_store(store: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no split 'val'; it has train, test"):
        PreparedLifting(store).sequences("val")
    (tmp_path / "manifest.json").write_text('{"layout": "another"}')
    with pytest.raises(ValueError, match="damaged"):
        PreparedLifting(tmp_path)
    for foreign in ("[]", '{"name": "an app"}'):
        (tmp_path / "manifest.json").write_text(foreign)
        with pytest.raises(ValueError, match="holds no prepared data set; run"):
            PreparedLifting(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        PreparedLifting(tmp_path)


def test_a_part_is_whole_or_not_there(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"content")
    sources = [fingerprint(source)]
    keys = ("name", "subject", "action", "camera", "joint_space", "image_size", "K", "fps")
    entries = [dict.fromkeys(keys) | {"start": 0, "stop": 5}]
    arrays = {"keypoints_px": np.ones((5, 17, 2)), "confidence": np.ones((5, 17))}
    arrays |= {"valid": np.ones(5, bool), "joints": np.ones((5, 17, 3))}
    write_part(tmp_path / "part", arrays, entries, sources, warnings=["odd"])
    part = read_part(tmp_path / "part")
    assert part.arrays["valid"].dtype == np.bool_
    assert part.arrays["joints"].dtype == np.float32
    assert part.sequences == entries
    assert (part.notes, part.warnings) == ([], ["odd"])
    assert is_finished(tmp_path / "part", sources)
    source.write_bytes(b"another")
    assert not is_finished(tmp_path / "part", [fingerprint(source)])
    with pytest.raises(ValueError, match="could not convert"):
        write_part(tmp_path / "bad", {"joints": np.array(["a"] * 5)}, entries, sources)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part", "source"]

    index = tmp_path / "part" / "sequences.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "sequences": [entries[0] | {"stop": 6}]}))
    with pytest.raises(ValueError, match="6 frames of the index"):
        read_part(tmp_path / "part")
    (tmp_path / "part" / "joints.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=r"part is damaged \(.*; delete it and prepare"):
        read_part(tmp_path / "part")
    (tmp_path / "part" / "joints.npy").unlink()
    assert not is_finished(tmp_path / "part", sources)


def test_a_part_without_an_array_or_an_entry_is_damaged(store: Path, tmp_path: Path) -> None:
    for change in ("entry", "array"):
        root = tmp_path / change
        shutil.copytree(store, root)
        part = root / "train" / json.loads((root / "manifest.json").read_text())["parts"]["train"][0]
        index = json.loads((part / "sequences.json").read_text())
        if change == "entry":
            del index["sequences"][0]["camera"]
        else:
            del index["bytes"]["confidence.npy"]
        (part / "sequences.json").write_text(json.dumps(index))
        with pytest.raises(
            ValueError, match=r"is damaged \(.* lacks ('camera' of a sequence|confidence\.npy)\); delete it"
        ):
            PreparedLifting(root).sequences("train")
        assert not is_finished(part)  # so that it is prepared again


@pytest.mark.filterwarnings("error")
def test_half_precision_is_compared_in_double() -> None:
    check_finite(np.full((3, 2), 60_000, np.float16), "a file", "joints")
    with pytest.raises(ValueError, match="not finite, first in frame 1"):
        check_finite(np.array([1.0, np.inf], np.float16), "a file", "joints")


def test_keypoints_outside_of_the_picture_are_refused() -> None:
    view = cameras()[0]
    keypoints = view.project(walking_m(50), lens=False)
    check_in_picture(keypoints, (1000, 1000), "walk")
    for changed in (10 * keypoints, keypoints - 5000, keypoints + np.array([0, 2000])):
        with pytest.raises(ValueError, match=r"walk: .* far outside of a picture of 1000 x 1000 pixels"):
            check_in_picture(changed, (1000, 1000), "walk")


def test_fingerprints_tell_files_apart(tmp_path: Path) -> None:
    path, content = tmp_path / "a", bytearray(9 << 20)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))
    first = fingerprint(path)
    for place in (0, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] = 1
        path.write_bytes(changed)
        os.utime(path, ns=(10**18, 10**18))
        assert fingerprint(path) != first
    changed = bytearray(content)
    changed[2 << 20] = 1  # of what is not read
    path.write_bytes(changed)
    os.utime(path, ns=(10**18, 10**18 + 1))
    assert fingerprint(path) != first


# What the checks accept and refuse.


@pytest.mark.parametrize("scale", [0.85, 1.0, 1.2])
@pytest.mark.parametrize("camera", range(4))
def test_people_of_any_size_and_view_are_accepted(scale: float, camera: int) -> None:
    world, view = walking_m(50, seed=camera, scale=scale), cameras()[camera]
    check_joints(1000 * view.to_camera_m(world), view.project(world, lens=True), "walk", unit="mm")


def test_a_person_who_lies_down_is_accepted() -> None:
    world = walking_m(50) @ np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]).T + [0, 0, 0.5]
    view = cameras()[1]
    check_joints(1000 * view.to_camera_m(world), view.project(world, lens=False), "rest", unit="mm")


@pytest.mark.parametrize("first", [joint for joint in range(17) if joint not in (7, 9)])
def test_joints_in_another_order_are_refused(first: int) -> None:
    # Spine and nose have neighbours at about the distance that they should be at.
    joints = 1000 * cameras()[0].to_camera_m(walking_m(100))
    second = (first + 5) % 17
    joints[:, [first, second]] = joints[:, [second, first]]
    with pytest.raises(ValueError, match=r"expected order|exchanged"):
        check_order(joints, "walk")


LEGS = {"right_hip": "left_hip", "right_knee": "left_knee", "right_ankle": "left_ankle"}
ARMS = {"right_shoulder": "left_shoulder", "right_elbow": "left_elbow", "right_wrist": "left_wrist"}
# Of one arm, one place further.
ROTATED = {"left_shoulder": "left_elbow", "left_elbow": "left_wrist", "left_wrist": "left_shoulder"}


@pytest.mark.parametrize("camera", range(4))
@pytest.mark.parametrize(
    "exchanged", [LEGS, ARMS, {**LEGS, **ARMS}, ROTATED], ids=["legs", "arms", "sides", "arm"]
)
def test_keypoints_of_another_joint_are_refused(exchanged: dict[str, str], camera: int) -> None:
    """As a whole such keypoints still look like the pose; with a detector's errors, too."""
    view = cameras()[camera]
    world = walking_m(100, seed=camera)
    keypoints = view.project(world, lens=True)
    joints = 1000 * view.to_camera_m(world)
    height = np.ptp(keypoints[..., 1], axis=1).mean()
    keypoints += np.random.default_rng(camera).normal(0, 0.03 * height, keypoints.shape)
    check_joints(joints, keypoints, "walk", unit="mm")
    order = list(range(17))
    for one, other in exchanged.items():
        order[H36M_17.index(one)] = H36M_17.index(other)
        if exchanged is not ROTATED:
            order[H36M_17.index(other)] = H36M_17.index(one)
    with pytest.raises(ValueError, match=r"lie about the 3D joint|do not show the 3D joints"):
        check_joints(joints, keypoints[:, order], "walk", unit="mm")


# Camera recovery.


@pytest.mark.parametrize("index", range(4))
def test_a_camera_is_recovered_exactly(index: int) -> None:
    truth = cameras()[index]
    world = walking_m(200, seed=index).reshape(-1, 3)
    found = recover_camera(world, truth.project(world, lens=True), "camera")
    assert found.residual_px < 1e-6
    np.testing.assert_allclose(found.K, truth.K, atol=1e-3)
    np.testing.assert_allclose(found.R_cam_world, truth.R_cam_world, atol=1e-6)
    np.testing.assert_allclose(found.t_cam_world, truth.t_cam_world_m, atol=1e-5)
    np.testing.assert_allclose(found.project(world), truth.project(world, lens=True), atol=1e-5)


def test_a_detectors_errors_average_out() -> None:
    truth = cameras()[2]
    world = np.concatenate([walking_m(400, seed) + np.array([0.4 * seed, -0.5, 0]) for seed in range(3)])
    world = world.reshape(-1, 3)
    rng = np.random.default_rng(0)
    pixels = truth.project(world, lens=True) + rng.normal(0, 4, (len(world), 2))
    pixels[:: len(pixels) // 100] += rng.normal(0, 150, (1, 2))  # and a hundred that are far off
    found = recover_camera(world, pixels, "camera")
    assert 3 < found.residual_px < 6
    placed = found.world_to_camera(world) - truth.to_camera_m(world)
    relative = placed.reshape(-1, 17, 3)
    relative = relative - relative[:, :1]
    # What a lifter learns from, joints about the pelvis, is right within 5 mm.
    assert np.linalg.norm(relative, axis=-1).mean() < 0.005
    assert np.linalg.norm(placed, axis=-1).mean() < 0.05


def test_distortion_of_nothing_is_nothing() -> None:
    rays = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_array_equal(distort(rays, np.zeros(5)), rays)


@pytest.mark.parametrize(
    ("world", "sentence"),
    [
        (np.zeros((100, 3)), "one place"),
        (np.ones((10, 3)), "too few"),
        (np.random.default_rng(0).normal(size=(100, 3)) * [1, 1, 0], "one plane"),
        (np.random.default_rng(0).normal(size=(100, 3)), "no camera explains"),
    ],
)
def test_pairs_without_a_camera(world: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        recover_camera(world, np.zeros((len(world), 2)), "camera")
