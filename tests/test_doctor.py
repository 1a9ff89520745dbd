"""tools/doctor.py: what it says of an installation, and what it recognises whatever the files are called."""

import json
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from body_fixtures import random_body_arrays
from command_fixtures import run_tool
from keypoint_fixtures import descending_scores, entry, openpose_folder, openpose_frame
from lifting_archives import h36m_pickle, mpi_inf_3dhp, videopose3d, write_3dhp, write_h36m, write_videopose3d
from mesh_fixtures import motionbert_mesh_content, write_three_dpw
from pickle_fixtures import write_python2_pickle, write_smpl_pickle

from core.datasets.preparation import prepare
from mesh_head import doctor
from mesh_head.doctor import Check, can_run_the_default_job, examine
from mesh_head.file_recognition import KINDS, find_files, recognise

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import doctor as doctor_tool  # noqa: E402


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of every kind, under names that say nothing."""
    root, original = tmp_path_factory.mktemp("found"), tmp_path_factory.mktemp("original")
    arrays = random_body_arrays()
    write_smpl_pickle(root / "a.pkl", arrays)
    write_smpl_pickle(root / "b", arrays, protocol=0)
    np.savez(root / "c.npz", **arrays)
    broken = {**arrays, "weights": arrays["weights"] * 2}
    np.savez(root / "d.npz", **broken)
    wide = {**arrays, "weights": np.ones((90, 52)) / 52, "kintree_table": np.zeros((2, 52), np.int64)}
    np.savez(root / "e.npz", **wide)
    np.save(root / "f.npy", np.zeros((17, 6890)))
    np.save(root / "g.npy", np.zeros((9, 6890)))
    np.save(root / "unknown.npy", np.zeros(3))
    write_h36m(original, h36m_pickle(10)).rename(root / "h")
    write_videopose3d(original, videopose3d(("S1",), 5), with_detected=False)
    (original / "data_3d_h36m.npz").rename(root / "i")
    (original / "data_2d_h36m_gt.npz").rename(root / "j")
    write_3dhp(original, *mpi_inf_3dhp(10))
    prepare("3dhp", original, root / "k", on_progress=lambda done, total: None, workers=1)
    (original / "data_train_3dhp.npz").rename(root / "l")
    (original / "data_test_3dhp.npz").rename(root / "m")
    write_three_dpw(original, "test", "walk")
    prepare("3dpw", original, root / "r", on_progress=lambda done, total: None, workers=1)
    next(original.rglob("walk.pkl")).rename(root / "n")
    split = motionbert_mesh_content(5, ("s_01",), camera_name="54138969")
    write_python2_pickle(root / "o", {"train": split, "test": split})
    np.savez(root / "p", poses=np.zeros((3, 72)), trans=np.zeros((3, 3)), mocap_framerate=30.0)
    with zipfile.ZipFile(root / "q.zip", "w") as archive:
        archive.writestr("sequenceFiles/test/walk.pkl", b"")
    (root / "s.json").write_text(json.dumps([entry(f"{frame}.jpg") for frame in range(3)]))
    openpose_folder(root, [openpose_frame(descending_scores(75))] * 6)
    (root / "other.json").write_text('{"name": "a package"}')
    (root / "manifest.json").write_text("[1, 2]")  # another program's
    (root / "empty.pkl").write_bytes(b"")
    torch.save({"state": torch.zeros(2)}, root / "last.ckpt")  # a zip with a pickle in it
    (root / "text.txt").write_text("v_template kintree_table posedirs")
    (root / ".hidden").mkdir()
    np.save(root / ".hidden" / "f.npy", np.zeros((17, 6890)))
    return root


def test_files_are_recognised_by_what_is_in_them(folder: Path) -> None:
    found = {finding.path.name: (finding.kind, finding.detail) for finding in find_files([folder])}
    assert found == {
        "a.pkl": ("smpl", "90 vertices, 10 betas"),
        "b": ("smpl", "90 vertices, 10 betas"),
        "c.npz": ("smpl", "90 vertices, 10 betas"),
        "d.npz": ("smpl", ""),
        "e.npz": ("smplx", "SMPL+H"),
        "f.npy": ("h36m_regressor", "6890 vertices"),
        "g.npy": ("extra_regressor", ""),
        "h": ("h36m", ""),
        "i": ("videopose3d_3d", ""),
        "j": ("videopose3d_2d", ""),
        "k": ("prepared", "3dhp for lifting, {'train': 1, 'test': 2}"),
        "l": ("3dhp", "train"),
        "m": ("3dhp", "test"),
        "n": ("3dpw", ""),
        "o": ("motionbert_mesh", "Human3.6M"),
        "p.npz": ("amass", ""),
        "r": ("prepared", "3dpw, from 1 files"),
        "s.json": ("keypoints", "alphapose"),
        "clip": ("keypoints", "openpose, 6 files"),
        "q.zip": ("archive", "holds sequenceFiles/test/walk.pkl"),
    }
    assert {kind for kind, _ in found.values()} == set(KINDS) - {"unreadable"}
    (problem,) = (finding.problem for finding in find_files([folder]) if finding.path.name == "d.npz")
    assert "weights" in problem


def test_linked_folders_are_searched(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "again").symlink_to(tmp_path)
    found = {finding.path.relative_to(tmp_path) for finding in find_files([tmp_path])}
    assert found == {"link" / finding.path.relative_to(folder) for finding in find_files([folder])}


def test_damaged_files_are_said_to_be(folder: Path, tmp_path: Path) -> None:
    for name in ("a.pkl", "c.npz"):
        content = (folder / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    problems = {finding.path.name: finding.problem for finding in find_files([tmp_path])}
    assert "damaged" in problems["c.npz"]
    # Of half a pickle not all keys are there: it is damaged, or not recognised, but never taken for whole.
    assert problems.get("a.pkl", "not recognised")


def test_damaged_files_are_in_the_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(7):
        (tmp_path / f"{number}.npz").write_bytes((folder / "c.npz").read_bytes()[:2000])
    doctor_tool.main([Path(".")])
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  [!!] damaged file")]
    assert len(rows) == 5
    assert "0.npz" in rows[0]
    assert "damaged (" in rows[0]
    assert "3 more" in rows[4]


def test_an_unfinished_set_is_said_to_be(folder: Path, tmp_path: Path) -> None:
    record = json.loads((folder / "r" / "preparation.json").read_text())
    (tmp_path / "preparation.json").write_text(json.dumps({**record, "finished": False}))
    (finding,) = find_files([tmp_path])
    assert finding.kind == "prepared"
    assert "does not say that it was finished" in finding.problem


class Touch:
    """A pickle that would make a file when executed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_nothing_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "executed"
    keys = dict.fromkeys(("v_template", "kintree_table", "posedirs"), 0)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({**keys, "trap": Touch(trap)}))
    (finding,) = recognise(tmp_path / "model.pkl")
    assert finding.kind == "smpl"
    assert "Path.touch" in finding.problem or "getattr" in finding.problem
    assert not trap.exists()


def test_the_installation_of_the_tests_is_examined() -> None:
    checks = {check.name: check for check in examine()}
    for name in ("python", "torch", "numpy", "hydra-core", "devices", "renderer torch", "open body"):
        assert checks[name].is_usable, checks[name]
        assert checks[name].is_needed
    assert f"cpu, {torch.get_num_threads()} thread" in checks["devices"].state
    for name in ("PyTorch3D", "pyrender", "smplx", "anny"):
        assert not checks[name].is_needed
        assert checks[name].is_usable or checks[name].remedy


def test_what_is_missing_or_too_old_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.5.1+cu121", "numpy": "2.0.0", "scipy": None}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "999.0"))
    checks = {check.name: check for check in doctor._needed_packages()}
    assert not checks["torch"].is_usable
    assert checks["numpy"].is_usable
    assert checks["scipy"].state == "not installed"
    assert 'pip install "scipy' in checks["scipy"].remedy
    assert not can_run_the_default_job(list(checks.values()))
    optional = Check("smplx", "not installed", False, False, "body_model=smplx")
    assert can_run_the_default_job([checks["numpy"], optional])


@pytest.mark.parametrize(("is_usable", "status"), [(True, 0), (False, 1)])
def test_the_table(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_usable: bool,
    status: int,
) -> None:
    check = Check("torch", "2.6.0", is_usable, True, "everything", "pip install torch")
    monkeypatch.setattr(doctor_tool, "examine", lambda: [check])
    assert doctor_tool.main([folder]) == status
    printed = capsys.readouterr().out
    assert ("[ok] torch" in printed) == is_usable
    assert ("pip install torch" in printed) != is_usable
    assert all(
        " ".join(kind.title.split()[:2]) in printed for name, kind in KINDS.items() if name != "unreadable"
    )
    assert f"default job {'can' if is_usable else 'cannot'} run" in printed
    assert doctor_tool.main([]) == status
    assert "root=FOLDER" in capsys.readouterr().out


def test_the_command_line() -> None:
    wrong = run_tool("doctor.py", "rout=.")
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
    nowhere = run_tool("doctor.py", "root=nowhere")
    assert nowhere.returncode == 2
    assert "nowhere" in nowhere.stderr
    assert "Traceback" not in nowhere.stderr


def test_no_kind_is_without_words() -> None:
    assert all(kind.title and kind.unlocks and kind.where_to_get for kind in KINDS.values())
    assert len({kind.title for kind in KINDS.values()}) == len(KINDS)
