import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mutation_fixtures import mutated_bytes

from core.datasets import amass
from core.datasets.amass import SPLITS
from core.datasets.preparation import PREPARERS, PreparationReport
from core.datasets.resumable_jobs import run_each
from core.motion.sequence import SMPL_24_FROM_LAYOUT, MotionSequence, find_motion_files, read_motion_npz
from mesh_head.motion_data import FolderMotion


def _write(path: Path, width: int, num_frames: int = 25, fps: float = 120.0, **changes: Any) -> np.ndarray:
    """A file as AMASS writes it, for SMPL+H (156 numbers per pose) or SMPL-X (165)."""
    poses = 0.1 * np.random.default_rng(width).normal(size=(1, width)).repeat(num_frames, axis=0)
    arrays: dict[str, Any] = {
        "poses": poses,
        "trans": np.linspace(0, 1, num_frames)[:, None] * [1.0, 2.0, 3.0],
        "betas": np.arange(16.0),
    }
    if width == 156:
        arrays |= {"gender": "b'female'", "mocap_framerate": fps, "dmpls": np.zeros((num_frames, 8))}
    else:
        arrays |= {"gender": "male", "mocap_frame_rate": fps, "surface_model_type": "smplx", "num_betas": 16}
        # Labels of markers come as object arrays, which nobody may unpickle.
        arrays["marker_labels"] = np.array(["C7", None], dtype=object)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **(arrays | changes))
    return poses


def _prepare(root: Path, out: Path, **options: Any) -> PreparationReport:
    return PREPARERS["amass"](root, out, on_progress=lambda done, of: None, **{"workers": 1, **options})


def test_both_variants_to_smpl_by_split(tmp_path: Path) -> None:
    root, out = tmp_path / "AMASS", tmp_path / "out"
    smplh = _write(root / "CMU/CMU/01/01_01_poses.npz", 156)
    smplx = _write(root / "HDM05/bk/HDM_bk_stageii.npz", 165)
    _write(root / "SSM/s1/walk_stageii.npz", 165, num_frames=49)
    _write(root / "SSM/s1/neutral_stagei.npz", 165)
    np.savez(root / "CMU/CMU/01/shape.npz", betas=np.zeros(16))
    report = _prepare(root, out)
    assert report.warnings == []
    assert report.counts == {
        **{"train motions": 1, "train frames": 7, "train seconds": 0},
        **{"val motions": 1, "val frames": 7, "val seconds": 0},
        **{"test motions": 1, "test frames": 13, "test seconds": 0},
    }
    (train,), (val,) = find_motion_files(out, "train"), find_motion_files(out, "val")
    assert (train.name, val.name) == ("CMU_CMU_01_01_01_poses.npz", "HDM05_bk_HDM_bk_stageii.npz")
    for path, poses, gender in ((train, smplh, "female"), (val, smplx, "male")):
        motion = read_motion_npz(path)
        assert (motion.fps, motion.gender) == (30.0, gender)
        assert motion.betas.tolist() == list(range(10))
        joints = poses[0].reshape(-1, 3)
        for joint, source in enumerate(SMPL_24_FROM_LAYOUT[poses.shape[1]]):
            expected = np.zeros(3) if source is None else joints[source]
            np.testing.assert_allclose(motion.poses_rotvec[:, joint], expected[None].repeat(7, 0), atol=1e-6)
        np.testing.assert_allclose(motion.translation_world_m[:, 1], np.linspace(0, 2, 25)[::4], atol=1e-6)


def test_own_rate_and_own_splits(tmp_path: Path) -> None:
    root, out = tmp_path / "AMASS", tmp_path / "out"
    _write(root / "CMU/01/a_poses.npz", 156)
    _write(root / "KIT/01/a_poses.npz", 156)
    report = _prepare(root, out, fps=0.0, splits={"val": ["CMU"]})
    assert report.warnings == ["The folder KIT is no set that the splits name; it was left out."]
    (path,) = find_motion_files(out, None)
    assert read_motion_npz(path).fps == 120.0
    with pytest.raises(ValueError, match="none of which is in a split"):
        _prepare(root, tmp_path / "other", splits={"val": ["SFU"]})


@pytest.mark.parametrize("fps", ["abc", True, -5, 1e9, float("nan"), [30], None])
def test_a_rate_is_a_number(tmp_path: Path, fps: Any) -> None:
    _write(tmp_path / "AMASS/CMU/01/a_poses.npz", 156)
    with pytest.raises(ValueError, match=r"fps must be a number of at least 0 and of at most 1000"):
        _prepare(tmp_path / "AMASS", tmp_path / "out", fps=fps)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "splits",
    [
        *(5, "train", [], {}, {"train": 5}, {"train": "CMU"}, {"train": None}, {"train": []}),
        *({"train": [1]}, {1: ["CMU"]}, {"a/b": ["CMU"]}, {"..": ["CMU"]}, {"": ["CMU"]}),
    ],
)
def test_splits_are_lists_by_name(tmp_path: Path, splits: Any) -> None:
    _write(tmp_path / "AMASS/CMU/01/a_poses.npz", 156)
    with pytest.raises(ValueError, match=r"^splits=.* names no lists of folders by split; give for example"):
        _prepare(tmp_path / "AMASS", tmp_path / "out", splits=splits)
    assert not (tmp_path / "out").exists()


def test_a_set_is_in_one_split_by_either_of_its_names(tmp_path: Path) -> None:
    _write(tmp_path / "AMASS/SSM/01/a_poses.npz", 156)
    _write(tmp_path / "AMASS/CMU/01/a_poses.npz", 156)
    report = _prepare(tmp_path / "AMASS", tmp_path / "out", splits={"train": ["CMU"], "test": ["SSM"]})
    assert (report.counts["train motions"], report.counts["test motions"]) == (1, 1)
    with pytest.raises(ValueError, match="puts SSM_synced into two splits"):
        _prepare(tmp_path / "AMASS", tmp_path / "b", splits={"train": ["SSM"], "test": ["SSM_synced"]})


def test_other_units_are_left_out(tmp_path: Path) -> None:
    root = tmp_path / "AMASS"
    poses = _write(root / "CMU/01/a_poses.npz", 156)
    _write(root / "CMU/01/b_poses.npz", 156, poses=180 * poses)
    _write(root / "CMU/01/c_poses.npz", 156, trans=np.full((25, 3), 900.0))
    report = _prepare(root, tmp_path / "out")
    assert report.counts["train motions"] == 1
    assert "b_poses.npz holds 'poses' in which a tenth of the joints" in report.warnings[0]
    assert "c_poses.npz holds 'trans' that lies" in report.warnings[1]


def test_folders_that_are_splits_already_stay_so(tmp_path: Path) -> None:
    root, out = tmp_path / "motion", tmp_path / "out"
    _write(root / "train/a.npz", 72)
    _write(root / "val/CMU/01/b_poses.npz", 72)
    _write(root / "test/c.npz", 72)
    report = _prepare(root, out)
    assert not report.warnings
    files = [str(path.relative_to(out)) for path in find_motion_files(out, None)]
    assert sorted(files) == ["test/c.npz", "train/a.npz", "val/CMU_01_b_poses.npz"]
    # Where splits are named, these are folders like others.
    assert _prepare(root, tmp_path / "named", splits={"train": ["test"]}).counts["train motions"] == 1


def test_unknown_folders_and_unreadable_files_are_told(tmp_path: Path) -> None:
    root, out = tmp_path / "AMASS", tmp_path / "out"
    _write(root / "MySet/01/a_poses.npz", 156)
    _write(root / "ACCAD/01/b_poses.npz", 156, trans=np.zeros((3, 3)))
    (root / "ACCAD/01/c_poses.npz").write_bytes(b"cos\nsystem\n(S'echo'\ntR.")
    report = _prepare(root, out)
    assert report.counts["train motions"] == 1
    assert (
        report.warnings[0]
        == "The folder MySet is no set that the splits name; it was counted as training data."
    )
    assert "b_poses.npz holds 'trans' of shape (3, 3)" in report.warnings[1]
    assert "c_poses.npz cannot be read" in report.warnings[2]
    # What was left out is tried again, what is done is kept.
    time_written = next(out.rglob("*.npz")).stat().st_mtime_ns
    _write(root / "ACCAD/01/b_poses.npz", 156)
    assert _prepare(root, out).counts["train motions"] == 2
    assert (out / "train/MySet_01_a_poses.npz").stat().st_mtime_ns == time_written


def test_what_was_prepared_inside_the_source_is_no_source(tmp_path: Path) -> None:
    _write(tmp_path / "CMU/01/a_poses.npz", 156)
    _write(tmp_path / "SSM_synced/02/b_poses.npz", 156)
    first = _prepare(tmp_path, tmp_path / "prepared")
    for out in (tmp_path / "prepared", tmp_path / "prepared_again"):
        again = _prepare(tmp_path, out)
        assert (again.counts, again.warnings) == (first.counts, [])
    with pytest.raises(ValueError, match="no motion but what was prepared before"):
        _prepare(tmp_path / "prepared", tmp_path / "other")


def test_what_is_out_of_date_goes_or_is_told(tmp_path: Path) -> None:
    root, out = tmp_path / "AMASS", tmp_path / "out"
    for name in "abc":
        _write(root / f"CMU/01/{name}_poses.npz", 156)
    _prepare(root, out)
    (root / "CMU/01/a_poses.npz").unlink()
    (root / "CMU/01/b_poses.npz").write_bytes(b"damaged")
    report = _prepare(root, out)
    assert report.counts["train motions"] == 1
    assert "also holds train/CMU_01_a_poses.npz of an earlier preparation" in report.warnings[0]
    assert "b_poses.npz cannot be read" in report.warnings[1]
    assert [path.stem for path in find_motion_files(out, "train")] == ["CMU_01_a_poses", "CMU_01_c_poses"]
    motion = FolderMotion(root=str(out), fps=30.0)
    assert [sequence.name for sequence in motion.read("train")] == ["CMU_01_a_poses", "CMU_01_c_poses"]
    (out / "train/CMU_01_a_poses.npz").unlink()
    with pytest.raises(ValueError, match=r"CMU_01_a_poses\.npz of the prepared set is gone"):
        motion.read("train")
    assert not any("also holds" in warning for warning in _prepare(root, out).warnings)
    assert [sequence.name for sequence in motion.read("train")] == ["CMU_01_c_poses"]
    _write(out / "train/own_poses.npz", 156)
    with pytest.raises(ValueError, match=r"own_poses\.npz is not of the set that was prepared in"):
        motion.read("train")


def test_half_a_preparation_is_not_trained_on(tmp_path: Path) -> None:
    root, out = tmp_path / "AMASS", tmp_path / "out"
    for name in "abc":
        _write(root / f"CMU/01/{name}_poses.npz", 156)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PREPARERS["amass"](root, out, on_progress=interrupt, workers=1)
    motion = FolderMotion(root=str(out), fps=30.0)
    with pytest.raises(ValueError, match=r"preparation\.json does not say that the preparation was finished"):
        motion.read("train")
    _prepare(root, out)
    assert len(motion.read("train")) == 3


@pytest.mark.parametrize("recorded", [False, True], ids=["none recorded", "one recorded"])
def test_what_an_interrupted_job_left_is_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool
) -> None:
    """The job had written its file, and nobody heard of it."""
    root, out = tmp_path / "AMASS", tmp_path / "out"
    for name in "abc":
        _write(root / f"CMU/01/{name}_poses.npz", 156)
    original = amass.write_motion_npz

    def write_and_die(path: Path, sequence: MotionSequence) -> None:
        original(path, sequence)
        if not recorded or path.stem == "CMU_01_b_poses":
            raise KeyboardInterrupt

    monkeypatch.setattr(amass, "write_motion_npz", write_and_die)
    with pytest.raises(KeyboardInterrupt):
        _prepare(root, out)
    monkeypatch.undo()
    assert find_motion_files(out, "train")
    with pytest.raises(ValueError, match="does not say that the preparation was finished"):
        FolderMotion(root=str(out), fps=30.0).read("train")
    # With other sources the file that was left behind is none of the set's.
    for name in "abc":
        (root / f"CMU/01/{name}_poses.npz").unlink()
    _write(root / "SSM/01/d_poses.npz", 156)
    _prepare(root, out)
    with pytest.raises(
        ValueError, match=r"is not of the set that was prepared" if not recorded else "_b_poses"
    ):
        FolderMotion(root=str(out), fps=30.0).read("train")


def test_jobs_that_ended_while_the_run_was_stopped_are_recorded(tmp_path: Path) -> None:
    finished: list[str] = []

    def finish(name: str, outcome: Callable[[], float]) -> None:
        outcome()
        finished.append(name)
        if len(finished) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_each(time.sleep, {"a": (0.0,), "b": (0.5,), "c": (0.0,)}, 2, finish)
    assert "b" in finished


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "CMU").mkdir()
    with pytest.raises(ValueError, match="holds no motion"):
        _prepare(tmp_path, tmp_path / "out")
    (tmp_path / "CMU" / "a.npz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"None of the 1 files below .* could be read.*a\.npz"):
        _prepare(tmp_path, tmp_path / "out")


def test_no_set_is_in_two_splits() -> None:
    names = [name for names in SPLITS.values() for name in names]
    assert len(names) == len(set(names)) == 24


@pytest.mark.parametrize("num_files", [200, pytest.param(3000, marks=pytest.mark.slow)])
def test_mutated_files_give_clear_errors_or_motion(tmp_path: Path, num_files: int) -> None:
    path = tmp_path / "a.npz"
    _write(path, 156, num_frames=3)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    num_refused = 0
    for _ in range(num_files):
        path.write_bytes(mutated_bytes(content, rng))
        try:
            read_motion_npz(path)
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017
            num_refused += 1
    assert num_refused > num_files / 4
