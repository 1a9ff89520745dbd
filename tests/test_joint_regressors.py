"""Joint regressors: from all vertices, and from the vertices they need."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from body_fixtures import random_body_arrays, random_body_parameters
from command_fixtures import composed
from hydra.utils import instantiate
from pickle_fixtures import write_smpl_pickle
from safetensors.torch import load_file
from torch import Tensor

from body_models.joint_regressors import (
    JointRegressor,
    find_h36m_regressor,
    load_h36m_regressor,
    read_h36m_regressor,
)
from body_models.model_files import load_body_model
from body_models.open_body import load_open_body, load_open_body_regressor, open_body_path
from body_models.smpl import SmplBody
from body_models.smplx_bridge import SmplxBody, load_smplx_body
from core.progress import ProgressDisplay
from core.skeleton import COCO_17, H36M_17
from core.training_run import run_training
from mesh_head.training import MeshRecoveryTask


def sparse_weights(num_vertices: int = 90) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    weights = torch.zeros(17, num_vertices, dtype=torch.float64)
    for joint in range(17):
        vertex_ids = torch.randperm(num_vertices // 2, generator=generator)[:4] * 2
        weights[joint, vertex_ids] = torch.rand(4, dtype=torch.float64, generator=generator)
    return weights / weights.sum(1, keepdim=True)


@pytest.mark.parametrize("batch", [(), (3,), (2, 0), (2, 3)])
def test_equals_the_dense_product(batch: tuple[int, ...]) -> None:
    weights = sparse_weights()
    vertices_m = torch.randn(*batch, 90, 3, dtype=torch.float64)
    for given in (weights, weights.to_sparse()):
        joints_m = JointRegressor(H36M_17, given)(vertices_m)
        torch.testing.assert_close(joints_m, torch.einsum("jv,...vc->...jc", weights, vertices_m))


def test_restricted_regressor_on_restricted_body_gives_the_same_joints() -> None:
    body = SmplBody.from_arrays(random_body_arrays(), dtype=torch.float64)
    regressor = JointRegressor(H36M_17, sparse_weights())
    assert regressor.support.tolist() == sparse_weights().any(0).nonzero()[:, 0].tolist()
    assert len(regressor.support) < 46
    parameters = random_body_parameters(2, 3)
    restricted_body = body.restricted_to(regressor.support)
    joints_m = regressor.restricted()(restricted_body(parameters).vertices_m)
    torch.testing.assert_close(joints_m, regressor(body(parameters).vertices_m))


def test_wrong_mesh_and_wrong_skeleton_are_refused() -> None:
    regressor = JointRegressor(H36M_17, sparse_weights())
    with pytest.raises(ValueError, match="made for a mesh of 90 vertices, not 6890"):
        regressor(torch.zeros(6890, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match="needs 17 rows, one per joint, but the weights have 9"):
        JointRegressor(COCO_17, sparse_weights()[:9])


def test_no_array_enters_a_checkpoint() -> None:
    assert JointRegressor(H36M_17, sparse_weights()).state_dict() == {}


def test_open_body_regressor_finds_the_knees_of_the_open_body() -> None:
    mesh = load_open_body()(random_body_parameters(4, dtype=torch.float32))
    joints_m = load_open_body_regressor("h36m_17")(mesh.vertices_m)
    for side, smpl_knee in (("left", 4), ("right", 5)):
        knee_m = joints_m[:, H36M_17.index(f"{side}_knee")]
        assert (knee_m - mesh.joints_m[:, smpl_knee]).norm(dim=-1).max() < 0.06


# SMPL's layout and Human3.6M's regressor, from the open body: same mesh, same joints, official file names.


@pytest.fixture(scope="module")
def smpl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("body_models")
    with np.load(open_body_path()) as file:
        arrays = {key: file[key] for key in file.files if not key.startswith("J_regressor_")}
        weights = file["J_regressor_h36m_17"].astype(np.float64)
    write_smpl_pickle(folder / "smpl" / "SMPL_NEUTRAL.pkl", arrays)
    (folder / "left_first").mkdir()
    np.save(folder / "left_first" / "J_regressor_h36m.npy", weights[[0, 4, 5, 6, 1, 2, 3, *range(7, 17)]])
    np.save(folder / "J_regressor_h36m_correct.npy", weights)
    return folder


def test_left_first_and_right_first_give_the_same_joints(smpl_folder: Path) -> None:
    vertices_m = load_open_body()(random_body_parameters(4, dtype=torch.float32)).vertices_m
    expected_m = load_open_body_regressor("h36m_17")(vertices_m)
    model = smpl_folder / "smpl"
    for regressor_path in (
        None,  # beside the folder of the model
        smpl_folder / "J_regressor_h36m_correct.npy",
        smpl_folder / "left_first" / "J_regressor_h36m.npy",
    ):
        for model_path in (model, model / "SMPL_NEUTRAL.pkl"):
            regressor = load_h36m_regressor(model_path, regressor_path)
            torch.testing.assert_close(regressor(vertices_m), expected_m)
    assert find_h36m_regressor(smpl_folder).name == "J_regressor_h36m_correct.npy"
    assert find_h36m_regressor(smpl_folder / "left_first").name == "J_regressor_h36m.npy"


def test_what_is_wrong_with_a_regressor_is_said(smpl_folder: Path, tmp_path: Path) -> None:
    v_template = load_open_body().v_template.numpy()
    weights = np.load(smpl_folder / "J_regressor_h36m_correct.npy")
    exchanged_arms = weights[[*range(11), 14, 15, 16, 11, 12, 13]]
    upside_down = weights[[0, 3, 2, 1, 6, 5, 4, *range(7, 17)]]
    path = tmp_path / "J_regressor_h36m.npy"
    for array, sentence in (
        (weights[:9], r"shape \(9, 6999\).*shape \(17, 6999\)"),
        (weights[:, :6890], r"shape \(17, 6890\)"),
        (weights * np.nan, "finite"),
        (2 * weights, r"row \d+ sums to 2"),
        (exchanged_arms, "row 11 should be the left shoulder and lies on the body's other side"),
        (upside_down, "the left knee does not lie below the hip|left ankle does not lie below"),
    ):
        np.save(path, array)
        with pytest.raises(ValueError, match=rf"J_regressor_h36m\.npy.*({sentence})"):
            read_h36m_regressor(path, v_template)
    np.save(path, np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"is not a \.npy of numbers"):
        read_h36m_regressor(path, v_template)
    with path.open("wb") as file:
        np.savez(file, weights)
    archive = path.read_bytes()
    for content in (archive, archive[:100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"J_regressor_h36m\.npy is not a \.npy of numbers"):
            read_h36m_regressor(path, v_template)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no joint regressor .*J_regressor_h36m\.npy"):
        read_h36m_regressor(path, v_template)
    empty = tmp_path / "a" / "b"
    empty.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"Neither J_regressor_h36m\.npy nor .*SPIN.*regressor_path"):
        find_h36m_regressor(empty)


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_smplx_computes_the_same_bodies(smpl_folder: Path, batch: tuple[int, ...]) -> None:
    pytest.importorskip("smplx")
    body = load_smplx_body(smpl_folder)
    own = load_body_model(smpl_folder)
    parameters = random_body_parameters(*batch, dtype=torch.float32)
    expected, mesh = own(parameters), body(parameters)
    torch.testing.assert_close(mesh.vertices_m, expected.vertices_m, atol=5e-6, rtol=0)
    torch.testing.assert_close(mesh.joints_m, expected.joints_m, atol=5e-6, rtol=0)
    kept = torch.tensor([5, 900, 17])
    restricted = body.restricted_to(kept)(parameters).vertices_m
    torch.testing.assert_close(restricted, expected.vertices_m[..., kept, :], atol=5e-6, rtol=0)
    doubled = body.double()(parameters).vertices_m
    torch.testing.assert_close(doubled, own.double()(parameters).vertices_m, atol=1e-9, rtol=0)
    assert body.state_dict() == {}
    assert [*body.parameters()] == []


def test_smplx_is_missed_with_a_sentence(smpl_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smplx", None)
    with pytest.raises(ValueError, match="body_model=smplx needs the smplx package"):
        load_smplx_body(smpl_folder)


@pytest.mark.parametrize("name", ["smpl", "smplx"])
def test_configurations_build_body_and_regressor(smpl_folder: Path, name: str) -> None:
    if name == "smplx":
        pytest.importorskip("smplx")
    config = composed("eval_mesh", f"body_model={name}", f"body_model.path={smpl_folder}", "weights=none")
    body = instantiate(config["body_model"]["body"])
    regressor = instantiate(config["body_model"]["regressor"])
    assert type(body) is (SmplxBody if name == "smplx" else SmplBody)
    assert body.num_vertices == regressor.num_vertices == 6999
    assert regressor.skeleton is H36M_17


@pytest.mark.slow
def test_training_on_smpl_is_training_on_the_same_arrays_and_stores_none_of_them(
    smpl_folder: Path, tmp_path: Path
) -> None:
    """The open body under SMPL's file name trains to the same losses; no tensor written is one of the body's."""
    small = [
        "backbone.weights=null",
        "backbone.context_dim=64",
        "backbone.dim=32",
        "schedule.max_seconds=null",
        "schedule.max_steps=2",
        "schedule.validation_interval=2",
        "data.num_sequences={train:2,val:1}",
        "data.num_frames=60",
        "curriculum=[{until:1.0,num_frames:9,batch_size:2,active_blocks:null}]",
        "evaluation.max_stretches=1",
    ]
    losses = {}
    for name, overrides in (("open", []), ("smpl", ["body_model=smpl", f"body_model.path={smpl_folder}"])):
        config = composed("train_mesh", *small, *overrides, f"out={tmp_path / name}")
        history = run_training(MeshRecoveryTask, config, ProgressDisplay()).metrics["history"]
        losses[name] = {key: value for key, value in history[-1].items() if key != "seconds"}
    assert losses["smpl"] == pytest.approx(losses["open"], rel=1e-3)

    body = load_body_model(smpl_folder)
    written = [
        *torch.load(tmp_path / "smpl" / "checkpoints" / "last.ckpt", weights_only=True)[
            "state_dict"
        ].values(),
        *load_file(tmp_path / "smpl" / "model.safetensors").values(),
    ]
    assert len(written) > 20
    values = np.unique(np.concatenate([tensor.float().numpy().ravel() for tensor in written]))
    arrays = body.arrays
    for array in (
        arrays.v_template,
        arrays.shapedirs,
        arrays.posedirs,
        arrays.lbs_weights,
        arrays.J_template,
    ):
        licensed = np.unique(array.astype(np.float32))
        licensed = licensed[np.abs(licensed) > 1e-3]
        # Among as many numbers a few are equal by chance.
        assert np.isin(licensed, values).mean() < 0.1
        assert np.isin(licensed, np.concatenate([values, array.astype(np.float32).ravel()])).all()
