"""tools/prepare_data.py for the lifting data sets, as a user runs it; every wrong file gets one clear sentence."""

import json
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_fixtures import run_tool, written_by_another_process
from lifting_archives import (
    h36m_pickle,
    mpi_inf_3dhp,
    videopose3d,
    write_3dhp,
    write_h36m,
    write_videopose3d,
)

from core.datasets.lifting_sequences import PreparedLifting
from core.datasets.preparation import PREPARERS, prepare

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import prepare_data  # noqa: E402
from command_line import run_command  # noqa: E402

LIFTING = ("h36m", "h36m_videopose3d", "3dhp")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good file of every layout."""
    root = tmp_path_factory.mktemp("originals")
    write_h36m(root, h36m_pickle())
    write_videopose3d(root, videopose3d(num_frames=60))
    write_3dhp(root, *mpi_inf_3dhp())
    return root


class Run:
    """The command in this process: its exit status and what it printed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["prepare_data.py", *arguments])
        status = 0
        try:
            run_command(prepare_data.main, "prepare_data", prepare_data.__doc__ or "")
        except SystemExit as exit:
            status = int(exit.code or 0)
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def fails(self, root: Path, dataset: str, *options: str) -> str:
        """The one sentence with which the preparation fails, leaving nothing half-written."""
        out = root / "prepared"
        status, _, error = self(f"dataset={dataset}", f"root={root}", f"out={out}", "workers=1", *options)
        assert status == 2, error
        assert len(error.strip().splitlines()) == 1, error
        assert not (out / "manifest.json").exists()
        assert not [path for path in out.rglob("*") if "unfinished" in path.name]
        with pytest.raises(ValueError, match="no prepared data set"):
            PreparedLifting(out)
        return error


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(monkeypatch, capsys)


@pytest.mark.parametrize("dataset", LIFTING)
def test_the_command_prepares_and_keeps_what_is_finished(
    originals: Path, tmp_path: Path, run: Run, dataset: str
) -> None:
    arguments = [f"dataset={dataset}", f"root={originals}", f"out={tmp_path / 'out'}", "workers=1"]
    arguments += ["keypoints=gt"] if dataset == "h36m_videopose3d" else []
    status, printed, error = run(*arguments)
    assert status == 0, error
    assert "train: frames" in printed
    assert "warning: " in printed
    store = PreparedLifting(tmp_path / "out")
    assert store.dataset == dataset
    assert store.sequences("train")
    assert store.sequences("test")

    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    status, printed, _ = run(*arguments)
    assert status == 0
    assert "before" in printed
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == written


@pytest.mark.slow
def test_as_a_separate_process_with_several_workers(originals: Path, tmp_path: Path) -> None:
    arguments = ["dataset=h36m_videopose3d", "workers=2", "keypoints=cpn_ft_h36m_dbb"]
    finished = run_tool("prepare_data.py", *arguments, f"root={originals}", f"out={tmp_path}")
    assert finished.returncode == 0, finished.stderr
    assert {sequence.subject for sequence in PreparedLifting(tmp_path).sequences("test")} == {"S9"}


def test_an_interrupted_preparation_goes_on(originals: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []

    def interrupt(done: int, total: int) -> None:
        calls.append((done, total))
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare("3dhp", originals, tmp_path, on_progress=interrupt, workers=1)
    (finished,) = tmp_path.glob("train/*")
    before = finished.stat().st_mtime_ns
    with pytest.raises(ValueError, match="to its end first"):
        PreparedLifting(tmp_path)
    (tmp_path / "train" / "S9_Seq1").mkdir()
    shutil.copy(finished / "sequences.json", tmp_path / "train" / "S9_Seq1")  # of another source, long ago
    prepare("3dhp", originals, tmp_path, on_progress=lambda done, total: None, workers=1)
    assert finished.stat().st_mtime_ns == before
    assert not (tmp_path / "train" / "S9_Seq1").exists()
    assert len(PreparedLifting(tmp_path).sequences("test")) == 2


def test_a_folder_is_one_preparations(originals: Path, tmp_path: Path, run: Run) -> None:
    out = tmp_path / "prepared"
    with written_by_another_process(out):
        error = run("dataset=h36m", f"root={originals}", f"out={out}")[2]
    assert "Another process that is running now writes into" in error
    assert [path for path in out.iterdir() if path.name[0] != "."] == []


def test_a_changed_source_and_a_damaged_part_are_prepared_again(tmp_path: Path) -> None:
    train, test = mpi_inf_3dhp()
    write_3dhp(tmp_path, train, test)
    out = tmp_path / "out"
    prepare("3dhp", tmp_path, out, on_progress=lambda done, total: None, workers=1)
    before = (out / "train" / "S1_Seq1").stat().st_mtime_ns
    test["TS1"]["valid"][:] = 1
    write_3dhp(tmp_path, train, test)
    prepare("3dhp", tmp_path, out, on_progress=lambda done, total: None, workers=1)
    assert PreparedLifting(out).sequences("test")[0].valid.all()

    joints = out / "train" / "S1_Seq1" / "joints.npy"
    joints.write_bytes(joints.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        PreparedLifting(out).sequences("train")
    prepare("3dhp", tmp_path, out, on_progress=lambda done, total: None, workers=1)
    assert PreparedLifting(out).sequences("train")
    assert (out / "train" / "S1_Seq1").stat().st_mtime_ns > before


def test_what_a_user_gets_wrong(originals: Path, tmp_path: Path, run: Run) -> None:
    assert "no data set 'h63m'" in run.fails(tmp_path, "h63m")
    assert "nowhere" in run.fails(tmp_path / "nowhere", "h36m")
    for dataset in LIFTING:
        assert "docs/datasets.md" in run.fails(tmp_path, dataset)
    shutil.copytree(originals, tmp_path / "copy")
    assert "no option 'keypoints'" in run.fails(tmp_path / "copy", "h36m", "keypoints=gt")
    assert "cpn_ft_h36m_dbb, gt" in run.fails(tmp_path / "copy", "h36m_videopose3d")
    assert "sh_ft" in run.fails(tmp_path / "copy", "h36m_videopose3d", "keypoints=sh_ft")
    out = tmp_path / "taken"
    assert run("dataset=3dhp", f"root={originals}", f"out={out}")[0] == 0
    status, _, error = run("dataset=h36m", f"root={originals}", f"out={out}")
    assert status == 2
    assert "already holds the data set '3dhp'" in error


def test_settings_that_are_no_numbers(originals: Path, run: Run) -> None:
    for workers in ("abc", "-1", "0", "0.5", "true", "[1]"):
        assert "workers must be a whole number of at least 1" in run.fails(
            originals, "3dhp", f"workers={workers}"
        )
    assert "no data set \"['3dhp']\"" in run.fails(originals, "[3dhp]")


def test_a_damaged_manifest_is_that_of_unfinished_work(originals: Path, tmp_path: Path) -> None:
    def prepare_3dhp() -> None:
        prepare("3dhp", originals, tmp_path, on_progress=lambda done, total: None, workers=1)

    prepare_3dhp()
    manifest, part = tmp_path / "manifest.json", tmp_path / "test" / "TS1"
    whole, written = manifest.read_text(), part.stat().st_mtime_ns
    content = json.loads(whole)
    odd_parts = (None, [], {}, {"test": None}, {"test": []}, {"test": [1]})
    odd = [content | {"parts": parts} for parts in odd_parts]
    odd += [content | {"dataset": None}, content | {"sources": None}]
    damaged_manifests = [whole[:50], whole.replace("lifting sequences 1", "lifting sequences 0")]
    for damaged in damaged_manifests + [json.dumps(manifest) for manifest in odd]:
        manifest.write_text(damaged)
        with pytest.raises(ValueError, match="prepare the data set again"):
            PreparedLifting(tmp_path)
        prepare_3dhp()
        assert manifest.read_text() == whole
        assert PreparedLifting(tmp_path).sequences("test")
    assert part.stat().st_mtime_ns == written  # what is finished is kept


FILES = {
    "h36m": "h36m_sh_conf_cam_source_final.pkl",
    "h36m_videopose3d": "data_3d_h36m.npz",
    "3dhp": "data_test_3dhp.npz",
}


class Touch:
    """A pickle that would make a file when executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("dataset", LIFTING)
@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "malicious"])
def test_a_broken_file(originals: Path, tmp_path: Path, run: Run, dataset: str, damage: str) -> None:
    shutil.copytree(originals, tmp_path, dirs_exist_ok=True)
    path = tmp_path / FILES[dataset]
    whole = path.read_bytes()
    trap = tmp_path / "executed"
    if damage == "malicious":
        if path.suffix == ".pkl":
            path.write_bytes(pickle.dumps({"train": Touch(trap), "test": {}}, protocol=4))
        else:
            key = "positions_3d" if dataset == "h36m_videopose3d" else "data"
            np.savez_compressed(path, **{key: np.array({"S1": Touch(trap)})})
    else:
        path.write_bytes(
            {"truncated": whole[: len(whole) // 2], "empty": b"", "garbage": b"no data " * 99}[damage]
        )
    options = ["keypoints=gt"] if dataset == "h36m_videopose3d" else []
    assert path.name in run.fails(tmp_path, dataset, *options)
    assert not trap.exists()


def _left_legs_first(joints: np.ndarray) -> np.ndarray:
    return joints[:, [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]]


def _exchanged(arrays: dict[str, Any], keys: tuple[str, ...], one: int, other: int) -> None:
    for key in keys:
        arrays[key] = arrays[key].copy()
        arrays[key][:, [one, other]] = arrays[key][:, [other, one]]


H36M_JOINTS = ("joint_2d", "joint3d_image", "joints_2.5d_image")
MPI_JOINTS = ("data_2d", "data_3d")


def _mirrored(joints: np.ndarray) -> np.ndarray:
    return joints * [-1, 1, 1]


H36M_DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "legs_exchanged": (
        lambda s: s.update(joint3d_image=_left_legs_first(s["joint3d_image"])),
        "left and right",
    ),
    "reversed_order": (lambda s: s.update(joint3d_image=s["joint3d_image"][:, ::-1]), "expected order"),
    "root_and_spine": (lambda s: _exchanged(s, H36M_JOINTS, 0, 7), "pelvis and spine are exchanged"),
    "nose_and_head": (lambda s: _exchanged(s, H36M_JOINTS, 9, 10), "head and nose are exchanged"),
    "2d_thorax_and_head": (
        lambda s: _exchanged(s, ("joint_2d",), 8, 10),
        "called head lie about the 3D joint thorax",
    ),
    "depth_in_mm": (lambda s: s.update(joint3d_image=s["joint3d_image"] * [1, 1, 12]), "depth"),
    "normalised_2d": (lambda s: s.update(joint_2d=s["joint_2d"] / 1000), "pixels are expected"),
    "2d_order": (lambda s: s.update(joint_2d=s["joint_2d"][:, ::-1]), "do not show"),
    "metres": (lambda s: s.update({"joints_2.5d_image": s["joints_2.5d_image"] / 1000}), "are in m "),
    "factor": (lambda s: s.update({"2.5d_factor": s["2.5d_factor"] * 1.2}), "mm away"),
    "negative_factor": (lambda s: s.update({"2.5d_factor": -s["2.5d_factor"]}), "above 0"),
    "not_finite": (
        lambda s: s["joint3d_image"].__setitem__((3, 2, 1), np.nan),
        "not finite, first in frame 3",
    ),
    "infinite_2d": (lambda s: s["joint_2d"].__setitem__((7, 2, 1), np.inf), "not finite, first in frame 7"),
    "lengths": (lambda s: s["source"].pop(), "differ in length"),
    "no_source": (lambda s: s.pop("source"), "lacks source"),
    "no_frame": (lambda s: s.update({key: value[:0] for key, value in s.items()}), "no frame"),
    "camera": (lambda s: s.update(camera_name=["1"] * len(s["source"])), "camera '1'"),
    "source": (lambda s: s.update(source=["S9"] * len(s["source"])), "source 'S9'"),
    "shape": (lambda s: s.update(joint_2d=s["joint_2d"][:, :16]), "'joint_2d' has shape"),
}


@pytest.mark.parametrize("damage", H36M_DAMAGE)
def test_a_wrong_h36m(tmp_path: Path, run: Run, damage: str) -> None:
    change, sentence = H36M_DAMAGE[damage]
    content = h36m_pickle(num_frames=20)
    change(content["test"])
    write_h36m(tmp_path, content)
    error = run.fails(tmp_path, "h36m")
    assert sentence in error
    assert "test" in error
    assert not (tmp_path / "prepared").exists()


def test_training_on_the_test_people_is_refused(tmp_path: Path, run: Run) -> None:
    content = h36m_pickle(num_frames=20)
    write_h36m(tmp_path, {"train": content["test"], "test": content["test"]})
    assert re.search(
        r"The training split holds S\d+.*, whom results are reported on", run.fails(tmp_path, "h36m")
    )


def _change_takes(table: dict[str, dict[str, Any]], change: Callable[[Any], Any]) -> None:
    for takes in table.values():
        for action, take in takes.items():
            takes[action] = change(take)


VIDEOPOSE3D_DAMAGE: dict[str, tuple[Callable[[Any], None], str]] = {
    "millimetres": (lambda t: _change_takes(t.positions_3d, lambda w: w * 1000), "are in mm"),
    "mirrored": (lambda t: _change_takes(t.positions_3d, _mirrored), "mirrored"),
    "reversed_2d": (lambda t: _change_takes(t.exact, lambda v: [x[:, ::-1] for x in v]), "camera 54138969"),
    "mirrored_2d": (
        lambda t: _change_takes(t.exact, lambda v: [_left_legs_first(x) for x in v]),
        "camera 54138969",
    ),
    "17_joints": (lambda t: _change_takes(t.positions_3d, lambda w: w[:, :17]), "(T, 32, 3)"),
    "not_finite": (
        lambda t: t.positions_3d["S1"]["Walking 1"].__setitem__((5, 0, 0), np.nan),
        "first in frame 5",
    ),
    "too_short": (lambda t: _change_takes(t.exact, lambda v: [x[:9] for x in v]), "do not go with"),
    "three_cameras": (lambda t: _change_takes(t.exact, lambda v: v[:3]), "3 cameras"),
    "no_action": (lambda t: t.exact["S1"].pop("Walking 1"), "'Walking 1' is missing"),
    "no_subject": (lambda t: t.exact.update(S5=t.exact.pop("S1")), "has no S1"),
    "stranger": (lambda t: t.positions_3d.update(S3=t.positions_3d["S1"]), "holds S3"),
}


@pytest.mark.parametrize("damage", VIDEOPOSE3D_DAMAGE)
def test_a_wrong_videopose3d(tmp_path: Path, run: Run, damage: str) -> None:
    change, sentence = VIDEOPOSE3D_DAMAGE[damage]
    tables = videopose3d(("S1",), num_frames=40)
    change(tables)
    write_videopose3d(tmp_path, tables, with_detected=False)
    assert sentence in run.fails(tmp_path, "h36m_videopose3d")


MPI_DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "metres": (lambda v: v.update(data_3d=v["data_3d"] / 1000), "are in m "),
    "h36m_order": (lambda v: v.update(data_3d=v["data_3d"][:, [14, *range(14), 15, 16]]), "expected order"),
    "arms_first": (
        lambda v: v.update(data_3d=v["data_3d"][:, [0, 1, 5, 6, 7, 2, 3, 4, *range(8, 17)]]),
        "exchanged",
    ),
    "root_and_spine": (lambda v: _exchanged(v, MPI_JOINTS, 14, 15), "pelvis and spine are exchanged"),
    "nose_and_head": (lambda v: _exchanged(v, MPI_JOINTS, 0, 16), "head and nose are exchanged"),
    "valid_nan": (lambda v: v.update(valid=np.full(len(v["data_3d"]), np.nan)), "not finite"),
    "mirrored": (lambda v: v.update(data_3d=_mirrored(v["data_3d"])), "axis is mirrored"),
    "y_up": (lambda v: v.update(data_3d=v["data_3d"] * [1, -1, -1]), "y points up"),
    "normalised_2d": (lambda v: v.update(data_2d=v["data_2d"] / 1024 - 1), "pixels are expected"),
    "not_finite": (lambda v: v["data_2d"].__setitem__((4, 1, 0), np.nan), "first in frame 4"),
    "lengths": (lambda v: v.update(data_2d=v["data_2d"][:-1]), "'data_2d' has shape"),
    "valid": (lambda v: v.update(valid=np.ones(3)), "'valid' has 3"),
    "no_joints": (lambda v: v.pop("data_3d"), "lacks"),
    "no_frame": (lambda v: v.update(data_3d=v["data_3d"][:0]), "no frame"),
}


@pytest.mark.parametrize("damage", MPI_DAMAGE)
def test_a_wrong_3dhp(tmp_path: Path, run: Run, damage: str) -> None:
    change, sentence = MPI_DAMAGE[damage]
    train, test = mpi_inf_3dhp(num_frames=30)
    change(test["TS1"])
    write_3dhp(tmp_path, train, test)
    error = run.fails(tmp_path, "3dhp")
    assert sentence in error
    assert "TS1" in error


def test_every_preparer_of_the_table_exists() -> None:
    for dataset, preparer in PREPARERS.items():
        with pytest.raises(ValueError, match="no option 'colour'"):
            preparer(Path("a"), Path("b"), on_progress=lambda done, total: None, workers=1, colour="red")
        assert dataset in (ROOT / "configs" / "prepare_data.yaml").read_text(encoding="utf-8")
