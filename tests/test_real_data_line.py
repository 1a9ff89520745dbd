"""Official files to numbers, as their owners distribute them: SMPL pickles and 3DPW, through the commands."""

import csv
import json
import math
import pickletools
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from command_fixtures import run_tool
from mesh_fixtures import write_three_dpw
from pickle_fixtures import write_smpl_pickle

from body_models.joint_regressors import load_h36m_regressor
from body_models.model_files import find_smpl_model, load_body_model
from body_models.open_body import open_body_path
from core.datasets.mesh_sequences import find_mesh_sequences
from core.datasets.preparation import PREPARERS, prepare
from mesh_head.benchmark_evaluation import BenchmarkEvaluator, evaluate_benchmark, true_parameters
from mesh_head.protocols import PROTOCOLS

# Human3.6M's rows with the left leg first, as in SPIN's file.
LEFT_FIRST = [0, 4, 5, 6, 1, 2, 3, *range(7, 17)]


@pytest.fixture(scope="module")
def smpl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models under SMPL's own names, in its own kind of pickle, with SPIN's regressor beside them."""
    folder = tmp_path_factory.mktemp("smpl")
    names = {
        "neutral": "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl",
        "male": "basicmodel_m_lbs_10_207_0_v1.1.0.pkl",
        "female": "basicmodel_f_lbs_10_207_0_v1.1.0.pkl",
    }
    for gender, name in names.items():
        with np.load(open_body_path(gender)) as arrays:
            content = {key: arrays[key] for key in arrays.files if not key.startswith("J_regressor_")}
            regressor = arrays["J_regressor_h36m_17"]
        write_smpl_pickle(folder / name, content)
        np.save(folder / "J_regressor_h36m.npy", regressor[LEFT_FIRST].astype(np.float64))
    return folder


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("3DPW")
    write_three_dpw(root, "train", "courtyard_a_00", num_images=30, genders=("m",))
    write_three_dpw(root, "validation", "courtyard_b_00", num_images=12, genders=("f",), seed=1)
    write_three_dpw(root, "test", "downtown_a_00", num_images=12, seed=2)
    write_three_dpw(root, "test", "office_b_00", num_images=9, genders=("f",), seed=3)
    return root


def run(tool: str, *arguments: str) -> str:
    finished = run_tool(tool, *arguments)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_prepare_train_evaluate(smpl_folder: Path, archive: Path, tmp_path: Path) -> None:
    prepared, out = tmp_path / "prepared", tmp_path / "run"
    run("prepare_data.py", "dataset=3dpw", f"root={archive}", f"out={prepared}", "workers=1")
    smpl = ["body_model=smpl", f"body_model.path={smpl_folder}"]
    run(
        "train_mesh.py",
        "data=mixed",
        f"data.sets.three_dpw.root={prepared}",
        *smpl,
        "backbone.weights=null",
        "schedule.max_steps=2",
        "schedule.max_seconds=null",
        "schedule.validation_interval=2",
        "curriculum=[{until: 1.0, num_frames: 9, batch_size: 4, active_blocks: null}]",
        f"out={out}",
    )
    printed = run(
        "eval_mesh.py",
        "data=3dpw",
        f"data.root={prepared}",
        *smpl,
        f"weights={out / 'model.safetensors'}",
        f"protocol=[{','.join(PROTOCOLS)}]",
        f"out={tmp_path / 'result.json'}",
        "workers=2",
        "worst_frames=2",
    )
    report = json.loads((tmp_path / "result.json").read_text())
    assert report["remark"] is None  # trained with the body that is evaluated
    for result in report["results"]:
        assert f"protocol {result['protocol']}" in printed
        assert result["total"]["num_frames"] == 2 * 12 + 9
        assert 10 < result["total"]["mpjpe_mm"] < 1000
    with (tmp_path / "result.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(PROTOCOLS) * (3 + 1)
    assert (tmp_path / "result_worst.png").stat().st_size > 10_000


def test_truth_is_without_error_from_official_files(smpl_folder: Path, archive: Path, tmp_path: Path) -> None:
    """Pickled archive, pickled models, a regressor in another order: 0.000 mm."""
    prepare("3dpw", archive, tmp_path, on_progress=lambda done, of: None, workers=1)
    load_body = partial(_load_smpl, smpl_folder)
    evaluator = BenchmarkEvaluator(
        recover=true_parameters,
        load_body=load_body,
        regressor=load_h36m_regressor(smpl_folder),
        protocols=list(PROTOCOLS.values()),
        device=torch.device("cpu"),
    )
    files = find_mesh_sequences(tmp_path, "test")
    assert len(files) == 3
    for name, errors in evaluate_benchmark(evaluator, files).errors.total.items():
        found = errors.as_dict()
        assert found.pop("num_frames") == 33
        if PROTOCOLS[name].true_body == "neutral":
            assert all(math.isclose(value, 0, abs_tol=5e-4) for value in found.values()), found
        else:  # predictions pose the neutral body, the truth is of a man or a woman
            assert 1 < found["mpjpe_mm"] < 60


def _load_smpl(folder: Path, gender: str = "neutral"):
    return load_body_model(find_smpl_model(folder, gender), gender=gender)


# Where each data set's preparation looks first.
SOURCES = {
    "h36m": "h36m_sh_conf_cam_source_final.pkl",
    "h36m_videopose3d": "data_3d_h36m.npz",
    "3dhp": "data_train_3dhp.npz",
    "3dpw": "sequenceFiles/train/a.pkl",
    "h36m_mesh": "mesh_det_h36m.pkl",
    "coco_mesh": "mesh_det_coco.pkl",
    "amass": "CMU/01/01_01_poses.npz",
}


@pytest.mark.parametrize("dataset", list(PREPARERS))
def test_no_preparation_runs_what_a_file_says(dataset: str, tmp_path: Path) -> None:
    marker, source = tmp_path / "ran", tmp_path / "root" / SOURCES[dataset]
    source.parent.mkdir(parents=True)
    hostile = b"cposix\nsystem\n(V" + f"touch {marker}".encode() + b"\ntR."
    program = [(opcode.name, argument) for opcode, argument, _ in pickletools.genops(hostile)]
    assert ("GLOBAL", "posix system") in program  # well formed: opened as a pickle it would run
    assert ("REDUCE", None) in program
    if source.suffix == ".pkl":
        source.write_bytes(hostile)
    else:
        np.savez(tmp_path / "plain.npz", poses=np.empty(1, dtype=object))
        with zipfile.ZipFile(tmp_path / "plain.npz") as plain:
            header = plain.read("poses.npy")[:128]
        with zipfile.ZipFile(source, "w") as file:
            for key in ("poses", "trans", "data", "positions_3d"):
                file.writestr(f"{key}.npy", header + hostile)
        for other in ("data_test_3dhp.npz", "data_2d_h36m_gt.npz"):
            (source.parent / other).write_bytes(source.read_bytes())
    options = {"keypoints": "gt"} if dataset == "h36m_videopose3d" else {}
    with pytest.raises(ValueError, match=source.name):
        prepare(
            dataset,
            tmp_path / "root",
            tmp_path / "out",
            on_progress=lambda done, of: None,
            workers=1,
            **options,
        )
    assert not marker.exists()
