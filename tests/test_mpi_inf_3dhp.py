"""MPI-INF-3DHP in P-STMO's layout, from files to sequences."""

from pathlib import Path

import numpy as np
import pytest
from lifting_archives import H36M_FROM_MPI, cameras, mpi_inf_3dhp, walking_m, write_3dhp

from core.datasets.lifting_sequences import PreparedLifting
from core.datasets.mpi_inf_3dhp import VALID_FRAMES, image_size
from core.datasets.preparation import PreparationReport, prepare
from core.skeleton import H36M_17, MPI_INF_17


def _prepare(root: Path) -> tuple[PreparedLifting, PreparationReport]:
    report = prepare("3dhp", root, root / "out", on_progress=lambda done, total: None, workers=1)
    return PreparedLifting(root / "out"), report


def test_the_skeleton_has_the_files_order() -> None:
    """The order as P-STMO and MotionAGFormer have it, in words."""
    right_arm, left_arm = ("shoulder", "elbow", "wrist"), ("shoulder", "elbow", "wrist")
    leg = ("hip", "knee", "ankle")
    assert MPI_INF_17.joint_names == (
        "head_top",
        "neck",
        *(f"right_{joint}" for joint in right_arm),
        *(f"left_{joint}" for joint in left_arm),
        *(f"right_{joint}" for joint in leg),
        *(f"left_{joint}" for joint in leg),
        "pelvis",
        "spine",
        "head",
    )
    assert MPI_INF_17.parents[14] == -1
    assert sorted(H36M_FROM_MPI) == list(range(H36M_17.num_joints))


def test_both_files(tmp_path: Path) -> None:
    write_3dhp(tmp_path, *mpi_inf_3dhp())
    store, report = _prepare(tmp_path)
    rig = cameras()
    train, test = store.sequences("train"), store.sequences("test")
    assert [(s.name, s.subject, s.action, s.camera) for s in train] == [
        ("S1_Seq1_0", "S1", "Seq1", "0"),
        ("S1_Seq1_4", "S1", "Seq1", "4"),
    ]
    assert [(s.name, s.image_size) for s in test] == [("TS1", (2048, 2048)), ("TS5", (1080, 1920))]
    for sequence, camera, seed in zip([*train, *test], [rig[0], rig[1], *rig[:2]], (1, 1, 0, 1), strict=True):
        world = walking_m(60, seed)
        np.testing.assert_allclose(sequence.joints, 1000 * camera.to_camera_m(world), atol=1e-3)
        np.testing.assert_allclose(sequence.keypoints_px, camera.project(world, lens=False), atol=1e-3)
        assert (sequence.joint_space, sequence.fps, sequence.K) == ("camera_mm", 25.0, None)
        nose = H36M_17.index("nose")  # stands for the middle of the head, and is trusted less
        assert (sequence.confidence[:, nose] == 0.5).all()
        assert (np.delete(sequence.confidence, nose, axis=1) == 1).all()
    assert train[0].image_size == (2048, 2048)
    assert all(sequence.valid.all() for sequence in train)
    assert [int(sequence.valid.sum()) for sequence in test] == [40, 41]
    assert report.counts["test: frames evaluated"] == 81
    for expected in (
        "TS1 has 40 valid frames; the complete file has 603",
        "TS5 has 41 valid frames; the complete file has 276",
        "test has no TS2",
        "train has no S8 Seq2",
        "S1 Seq1 has 2 cameras; the complete file has 8",
    ):
        assert any(expected in warning for warning in report.warnings), expected
    assert sum(VALID_FRAMES.values()) == 2929


def test_two_test_sequences_are_outdoors_and_wide() -> None:
    wide = [name for name in (*VALID_FRAMES, "S1 Seq1") if image_size(name) == (1080, 1920)]
    assert wide == ["TS5", "TS6"]
    assert image_size("TS4") == image_size("S1 Seq1") == (2048, 2048)


@pytest.mark.parametrize("name", ["../../victim", "/victim", "TS1/../../victim", "other"])
def test_names_in_a_file_are_no_paths(tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim" / "precious.txt"
    victim.parent.mkdir()
    victim.write_text("mine")
    train, test = mpi_inf_3dhp()
    test[name] = test.pop("TS1")
    (tmp_path / "in").mkdir()
    write_3dhp(tmp_path / "in", train, test)
    with pytest.raises(ValueError, match="names like 'TS1' are expected"):
        prepare(
            "3dhp",
            tmp_path / "in",
            tmp_path / "out" / "store",
            on_progress=lambda done, total: None,
            workers=1,
        )
    assert victim.read_text() == "mine"
    assert [path.name for path in victim.parent.iterdir()] == ["precious.txt"]


def test_sequences_of_nobody_are_told(tmp_path: Path) -> None:
    train, test = mpi_inf_3dhp()
    test["TS9"], train["S9 Seq1"] = test["TS1"], train["S1 Seq1"]
    write_3dhp(tmp_path, train, test)
    _, report = _prepare(tmp_path)
    for expected in ("train holds S9_Seq1, which MPI-INF-3DHP does not have", "test holds TS9, which"):
        assert any(expected in warning for warning in report.warnings), expected


def test_only_the_test_file(tmp_path: Path) -> None:
    write_3dhp(tmp_path, *mpi_inf_3dhp())
    (tmp_path / "data_train_3dhp.npz").unlink()
    store, report = _prepare(tmp_path)
    assert len(store.sequences("test")) == 2
    assert any("no train split" in warning for warning in report.warnings)


def test_frame_rates_of_the_training_file(tmp_path: Path) -> None:
    def written(number: int, rate: object) -> Path:
        folder = tmp_path / str(number)
        folder.mkdir()
        train, test = mpi_inf_3dhp()
        write_3dhp(folder, {name: [content[0], rate] for name, content in train.items()}, test)
        return folder

    for number, (rate, expected) in enumerate(((50, 50.0), (np.array(50), 50.0), (np.array([[25]]), 25.0))):
        store, _ = _prepare(written(number, rate))
        assert {sequence.fps for sequence in store.sequences("train")} == {expected}
    for number, rate in enumerate((True, np.inf, 0, "fast", [25, 50]), start=3):
        with pytest.raises(ValueError, match=r"gives the frame rate .*; frames per second are expected"):
            _prepare(written(number, rate))


def test_frames_that_do_not_count_may_hold_anything_finite(tmp_path: Path) -> None:
    train, test = mpi_inf_3dhp()
    test["TS1"]["data_3d"][40:] = 0
    test["TS1"]["valid"] = test["TS1"]["valid"].astype(bool)[:, None]
    write_3dhp(tmp_path, train, test)
    store, _ = _prepare(tmp_path)
    assert int(store.sequences("test")[0].valid.sum()) == 40
