import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mesh_fixtures import mesh_sequence, write_mesh_set

from core.datasets.mesh_sequences import find_mesh_sequences, read_mesh_sequence, write_mesh_sequence
from core.datasets.resumable_jobs import JobLog


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"poses_rotvec": None, "betas": None, "joints_cam_m": np.zeros((20, 17, 3))},
        {
            "translation_world_m": np.ones((20, 3)),
            "valid": np.arange(20) > 3,
            "frame_betas": np.ones((20, 10)),
        },
    ],
)
def test_comes_back_from_its_file(tmp_path: Path, changes: dict[str, Any]) -> None:
    sequence = mesh_sequence(**changes)
    path = tmp_path / "train" / "sequence_0.npz"
    write_mesh_set(tmp_path, "train", sequence)
    read = read_mesh_sequence(path)
    for field in fields(sequence):
        np.testing.assert_equal(getattr(read, field.name), getattr(sequence, field.name), err_msg=field.name)
    assert find_mesh_sequences(tmp_path, "train") == [path]


def test_parameters_in_a_camera_that_stands_at_the_origin_are_those_of_the_world() -> None:
    sequence = mesh_sequence(translation_world_m=np.random.default_rng(0).normal(size=(20, 3)))
    root, translation = sequence.parameters_cam(torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64))
    assert translation is not None
    np.testing.assert_allclose(translation.numpy(), sequence.translation_world_m, atol=1e-12)
    assert root.shape == (20, 3, 3)
    assert root.dtype == torch.float64
    assert mesh_sequence().parameters_cam(torch.zeros(3))[1] is None


def test_joints_alone_are_no_body() -> None:
    sequence = mesh_sequence(poses_rotvec=None, betas=None, joints_cam_m=np.zeros((20, 17, 3)))
    with pytest.raises(ValueError, match="'sequence_0' of synthetic has joints but no body"):
        sequence.parameters_cam(torch.zeros(3))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"frame_ids": np.zeros(20, int)}, "do not increase"),
        ({"confidence": np.full((20, 17), 1.5)}, "spans 1.5 to 1.5"),
        ({"betas": None}, "poses without betas"),
        ({"K": np.full((3, 3), np.nan)}, "K holds values that are not finite"),
        ({"fps": 0.0}, "frame rate is 0"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        mesh_sequence(**changes)


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "test" / "a.npz"
    write_mesh_sequence(path, mesh_sequence())
    whole = path.read_bytes()
    for content in (
        b"",
        b"cos\nsystem\n.",
        whole[: len(whole) // 2],
        whole[:-30],
        whole.replace(b"<f8", b"<O8"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npz"):
            read_mesh_sequence(path)
    np.savez(path, poses=np.zeros(3))
    with pytest.raises(ValueError, match=r"a\.npz is no mesh sequence: it lacks name, dataset"):
        read_mesh_sequence(path)
    with pytest.raises(FileNotFoundError, match=r"b\.npz"):
        read_mesh_sequence(tmp_path / "b.npz")
    with pytest.raises(ValueError, match=r"no prepared mesh sequence in .*train"):
        find_mesh_sequences(tmp_path, "train")


def test_a_set_is_whole_or_refused(tmp_path: Path) -> None:
    write_mesh_set(tmp_path, "train", mesh_sequence(), mesh_sequence(seed=1))
    first, second = tmp_path / "train/sequence_0.npz", tmp_path / "train/sequence_1.npz"
    (tmp_path / "train" / "stranger.npz").write_bytes(first.read_bytes())  # not the preparation's
    assert find_mesh_sequences(tmp_path, "train") == [first, second]
    second.rename(tmp_path / "elsewhere.npz")
    with pytest.raises(ValueError, match=r"sequence_1\.npz of the prepared set is gone"):
        find_mesh_sequences(tmp_path, "train")
    (tmp_path / "elsewhere.npz").rename(second)
    record = tmp_path / "preparation.json"
    content = json.loads(record.read_text())
    for unfinished in (content | {"finished": False}, {key: content[key] for key in ("settings", "done")}):
        record.write_text(json.dumps(unfinished))
        with pytest.raises(
            ValueError, match=r"does not say that the preparation was finished; run tools/prepare"
        ):
            find_mesh_sequences(tmp_path, "train")
    job = next(iter(content["done"].values()))
    of_result = ({"outputs": None}, {"outputs": [1]}, {"counts": {"x": "1"}}, {"warnings": None})
    damaged_jobs = [
        {},
        None,
        job | {"source": None},
        job | {"source": ["x"]},
        job | {"result": {"outputs": []}},
    ]
    damaged_jobs += [job | {"result": job["result"] | changes} for changes in of_result]
    for damaged in ([1], *({"a": damaged_job} for damaged_job in damaged_jobs)):
        record.write_text(json.dumps(content | {"done": damaged}))
        with pytest.raises(ValueError, match=r"preparation\.json is damaged.*prepare the set again"):
            find_mesh_sequences(tmp_path, "train")
        with pytest.raises(ValueError, match=r"preparation\.json is damaged"):
            JobLog(tmp_path, {})
    record.write_text("{")
    with pytest.raises(ValueError, match=r"preparation\.json is damaged"):
        find_mesh_sequences(tmp_path, "train")
    for of_others in ("[]", "{}", '{"version": 2, "done": true}'):
        record.write_text(of_others)
        with pytest.raises(ValueError, match=r"another program's.*name another folder"):
            find_mesh_sequences(tmp_path, "train")
    record.unlink()
    with pytest.raises(ValueError, match=r"has no preparation\.json"):
        find_mesh_sequences(tmp_path, "train")


ODD_VALUES = [
    None,
    3,
    -1.5,
    "text",
    [],
    [[]],
    {},
    [None] * 30,
    np.zeros(()),
    np.zeros((30, 3)),
    np.array([object()]),
]


@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: type(value).__name__)
def test_odd_values_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    path = tmp_path / "a.npz"
    write_mesh_sequence(path, mesh_sequence())
    arrays = dict(np.load(path))
    for key in arrays:
        changed = arrays | {key: value}
        monkeypatch.setattr("core.datasets.mesh_sequences.read_npz", lambda path, changed=changed: changed)
        if key in ("name", "dataset") or (key == "fps" and isinstance(value, int)):
            continue
        with pytest.raises(ValueError, match=r"a\.npz"):
            read_mesh_sequence(path)
