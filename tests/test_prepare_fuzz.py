"""Thousands of mutated files of every layout: each is prepared, or refused with a sentence naming it."""

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lifting_archives import h36m_pickle, mpi_inf_3dhp, videopose3d
from mesh_fixtures import motionbert_mesh_content, three_dpw_content
from mutation_fixtures import ODD, changed, mutated_bytes, places_in
from pickle_fixtures import write_python2_pickle

from core.datasets.preparation import prepare


def _write(path: Path, key: str, content: Any) -> None:
    """A pickle of either Python, or an .npz with the content under `key`, as the set's owners write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if key == "python 2":
        write_python2_pickle(path, content)
        return
    if key == "python 3":
        path.write_bytes(pickle.dumps(content, protocol=4))
        return
    array = np.empty((), object)
    array[()] = content
    np.savez(path, **{key: array})


def _originals(dataset: str) -> dict[str, tuple[str, Any]]:
    """File name → its pickle's Python or its key, and its content."""
    if dataset == "h36m":
        return {"h36m_sh_conf_cam_source_final.pkl": ("python 3", h36m_pickle(5))}
    if dataset == "3dhp":
        train, test = mpi_inf_3dhp(5)
        return {"data_train_3dhp.npz": ("data", train), "data_test_3dhp.npz": ("data", test)}
    if dataset == "3dpw":
        content = three_dpw_content("downtown_a_00", num_images=4)
        return {"sequenceFiles/test/downtown_a_00.pkl": ("python 2", content)}
    if dataset == "h36m_mesh":
        split = motionbert_mesh_content(3, ("s_01_act_02_subact_01_ca_01",), camera_name="54138969")
        return {"mesh_det_h36m.pkl": ("python 2", {"train": split, "test": split})}
    if dataset == "coco_mesh":
        split = motionbert_mesh_content(1, ("image_0.jpg", "image_1.jpg"), camera_name=None)
        return {"mesh_det_coco.pkl": ("python 2", {"train": split})}
    tables = videopose3d(("S1",), 8)
    return {
        "data_3d_h36m.npz": ("positions_3d", tables.positions_3d),
        "data_2d_h36m_gt.npz": ("positions_2d", tables.exact),
    }


@pytest.mark.parametrize("num_files", [30, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("dataset", ["h36m", "h36m_videopose3d", "3dhp", "3dpw", "h36m_mesh", "coco_mesh"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mutated_files(tmp_path: Path, dataset: str, num_files: int) -> None:
    rng = np.random.default_rng(num_files)
    root, out = tmp_path / "root", tmp_path / "out"
    originals = _originals(dataset)
    sentences: list[str] = []
    files = list(originals)
    for number in range(num_files):
        chosen = files[number % len(files)]
        is_content = bool(rng.random() < 0.6)
        for name, (key, content) in originals.items():
            if name == chosen and is_content:
                places = list(places_in(content))
                odd = ODD[rng.integers(len(ODD))]
                content = changed(content, places[rng.integers(len(places))], odd, rng)
            _write(root / name, key, content)
            if name == chosen and not is_content:
                (root / name).write_bytes(mutated_bytes((root / name).read_bytes(), rng))
        try:
            prepare(dataset, root, out, on_progress=lambda done, total: None, workers=1)
        except ValueError as error:
            sentences.append(str(error))
            assert not (out / "manifest.json").exists()
            assert not [path for path in out.rglob("*") if "unfinished" in path.name]
        shutil.rmtree(out, ignore_errors=True)
    assert len(sentences) > num_files // 2
    assert [sentence for sentence in sentences if str(root) not in sentence] == []
