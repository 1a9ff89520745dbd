"""Model files in SMPL's layout: what is read, and the sentence for each thing that can be wrong."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from body_fixtures import SMPL_PARENTS, random_body_arrays, random_body_parameters
from pickle_fixtures import write_smpl_pickle
from scipy.sparse import csc_matrix

from body_models.model_files import find_smpl_model, load_body_model, read_model_arrays
from body_models.open_body import open_body_path
from body_models.smpl import SmplBody


def save(path: Path, **changes: Any) -> Path:
    arrays = {**random_body_arrays(), **changes}
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "body.npz"


def test_arrays_are_read_as_written_with_the_root_parent_as_minus_one(path: Path) -> None:
    arrays = random_body_arrays()
    extra = np.arange(3.0)
    read = read_model_arrays(save(path, J_regressor_extra=extra))
    for key in ("v_template", "shapedirs", "posedirs", "weights", "J_regressor", "f"):
        np.testing.assert_array_equal(read[key], arrays[key])
    np.testing.assert_array_equal(read["kintree_table"], [SMPL_PARENTS, range(24)])
    np.testing.assert_array_equal(read["J_regressor_extra"], extra)


@pytest.mark.parametrize("dtype", [np.uint32, np.int64, np.int32])
def test_root_parent_in_every_integer_type(path: Path, dtype: type) -> None:
    kintree_table = np.array([SMPL_PARENTS, range(24)]).astype(dtype)
    assert read_model_arrays(save(path, kintree_table=kintree_table))["kintree_table"][0, 0] == -1


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble])
def test_numbers_of_another_machine(path: Path, dtype: Any) -> None:
    arrays = random_body_arrays()
    np.savez(path, **{key: a.astype(dtype) if a.dtype.kind == "f" else a for key, a in arrays.items()})
    parameters = random_body_parameters(2, dtype=torch.float32)
    expected = SmplBody.from_arrays(arrays)(parameters)
    torch.testing.assert_close(
        load_body_model(path)(parameters).vertices_m, expected.vertices_m, atol=1e-5, rtol=0
    )


def test_body_from_file_equals_body_from_arrays(path: Path) -> None:
    parameters = random_body_parameters(2, num_betas=4, dtype=torch.float32)
    expected = SmplBody.from_arrays(random_body_arrays(), num_betas=4)(parameters)
    mesh = load_body_model(save(path), num_betas=4)(parameters)
    torch.testing.assert_close(mesh.vertices_m, expected.vertices_m, atol=0, rtol=0)


def test_more_than_ten_betas(path: Path) -> None:
    np.savez(path, **random_body_arrays(num_betas=16))
    assert load_body_model(path).num_betas == 10
    assert load_body_model(path, num_betas=16).num_betas == 16
    with pytest.raises(
        ValueError,
        match=r"\.npz: The body model has 16 shape directions, not 300: ask for num_betas=16 or fewer",
    ):
        load_body_model(path, num_betas=300)


def test_the_open_body_is_a_model_file() -> None:
    arrays = read_model_arrays(open_body_path())
    assert len(arrays["v_template"]) != 6890
    assert arrays["kintree_table"][0].tolist() == list(SMPL_PARENTS)


@pytest.mark.parametrize("protocol", [0, 2])
@pytest.mark.parametrize("num_betas", [10, 300])
def test_official_pickles_equal_the_arrays_in_them(tmp_path: Path, protocol: int, num_betas: int) -> None:
    """Python 2 wrote them: chumpy objects, a csc regressor, uint32 faces, 4294967295 as the root's parent."""
    arrays = random_body_arrays(num_betas=num_betas)
    arrays["kintree_table"] = arrays["kintree_table"].astype(np.uint32)
    assert arrays["kintree_table"][0, 0] == 4294967295
    read = read_model_arrays(write_smpl_pickle(tmp_path / "SMPL_MALE.pkl", arrays, protocol))
    for key in ("v_template", "shapedirs", "posedirs", "weights", "J_regressor", "f"):
        np.testing.assert_array_equal(read[key], arrays[key])
    assert read["f"].dtype == np.uint32
    assert read["kintree_table"][0, 0] == -1
    np.testing.assert_array_equal(read["J_regressor_prior"], arrays["J_regressor"])
    assert "pose_training_info" not in read
    assert load_body_model(tmp_path / "SMPL_MALE.pkl").num_betas == 10
    assert load_body_model(tmp_path, gender="male", num_betas=num_betas).num_betas == num_betas


def test_npz_with_a_pickled_sparse_regressor(path: Path) -> None:
    arrays = random_body_arrays()
    np.savez(path, **{**arrays, "J_regressor": np.array(csc_matrix(arrays["J_regressor"]), dtype=object)})
    np.testing.assert_array_equal(read_model_arrays(path)["J_regressor"], arrays["J_regressor"])


def test_pickles_are_told_by_content(tmp_path: Path) -> None:
    """A pickle called .npz and an archive called .pkl."""
    arrays = random_body_arrays()
    np.savez(tmp_path / "a.npz", **arrays)
    (tmp_path / "a.npz").rename(tmp_path / "SMPL_NEUTRAL.pkl")
    np.testing.assert_array_equal(
        read_model_arrays(tmp_path / "SMPL_NEUTRAL.pkl")["weights"],
        read_model_arrays(write_smpl_pickle(tmp_path / "SMPL_NEUTRAL.npz", arrays))["weights"],
    )


@pytest.mark.parametrize(
    ("gender", "name"),
    [
        ("neutral", "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl"),
        ("neutral", "basicmodel_neutral_lbs_10_207_0_v1.1.0.pkl"),
        ("male", "basicmodel_m_lbs_10_207_0_v1.0.0.pkl"),
        ("male", "basicmodel_m_lbs_10_207_0_v1.1.0.npz"),
        ("female", "basicModel_f_lbs_10_207_0_v1.0.0.pkl"),
        ("neutral", "SMPL_NEUTRAL.pkl"),
        ("male", "SMPL_MALE.npz"),
        ("female", "smpl_female.pkl"),
    ],
)
def test_models_are_found_under_all_their_names(tmp_path: Path, gender: str, name: str) -> None:
    for folder in (
        tmp_path,
        tmp_path / "models" / "smpl",
        tmp_path / "SMPL_python_v.1.1.0" / "smpl" / "models",
    ):
        folder.mkdir(parents=True, exist_ok=True)
        for other in ("SMPLX_NEUTRAL.npz", "SMPLH_MALE.pkl", "SMPL_FEMALE.pkl.part", "notes.txt"):
            (folder / other).touch()
        (folder / name).touch()
        assert find_smpl_model(tmp_path, gender) == folder / name
        assert find_smpl_model(folder / name) == folder / name
        for absent in {"neutral", "male", "female"} - {gender}:
            with pytest.raises(
                FileNotFoundError, match=rf"No {absent} SMPL model .*SMPL_{absent.upper()} and "
            ):
                find_smpl_model(tmp_path, absent)
            with pytest.raises(
                ValueError, match=f"is the {gender} model by its name, but {absent} was asked"
            ):
                find_smpl_model(folder / name, absent)
        (folder / name).unlink()


def test_the_shallowest_then_the_short_then_the_latest_name_is_taken(tmp_path: Path) -> None:
    for name in (
        "deep/SMPL_MALE.pkl",
        "basicmodel_m_lbs_10_207_0_v1.0.0.pkl",
        "basicmodel_m_lbs_10_207_0_v1.1.0.pkl",
        "SMPL_MALE.pkl",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        assert find_smpl_model(tmp_path, "male") == tmp_path / name
    with pytest.raises(ValueError, match="no body model of gender 'child'"):
        find_smpl_model(tmp_path, "child")


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_no_pickle_is_executed(path: Path) -> None:
    marker = path.with_name("ran")
    bomb = np.empty(1, dtype=object)
    bomb[0] = Bomb(marker)
    for key in ("J_regressor", "J_regressor_prior"):
        with pytest.raises(ValueError, match=rf"body\.npz, array '{key}', asks for pathlib\..* refused"):
            read_model_arrays(save(path, **{key: bomb}))

    pickled = path.with_name("SMPL_NEUTRAL.pkl")
    pickled.write_bytes(pickle.dumps({**random_body_arrays(), "weights_prior": Bomb(marker)}))
    with pytest.raises(ValueError, match=r"SMPL_NEUTRAL\.pkl asks for pathlib\..* refused"):
        load_body_model(path.parent)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"v_template": 1000 * random_body_arrays()["v_template"]}, r"stands \d+ m tall.*millimetres\?"),
        (
            {"v_template": 100 * random_body_arrays()["v_template"]},
            r"stands \d+(\.\d)? m tall.*centimetres\?",
        ),
        ({"v_template": 0.1 * random_body_arrays()["v_template"]}, "another unit or axis"),
        ({"v_template": np.zeros((0, 3)), "weights": np.zeros((0, 24))}, "has shape"),
        ({"J_regressor": {"no": "array"}}, "'J_regressor' is not an array of numbers"),
    ],
)
def test_units_and_kinds_are_verified(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "SMPL_MALE.pkl"
    path.write_bytes(pickle.dumps({**random_body_arrays(), **changes}))
    with pytest.raises(ValueError, match=rf"SMPL_MALE\.pkl: .*{sentence}"):
        read_model_arrays(path)


def test_a_sparse_regressor_of_another_mesh(tmp_path: Path) -> None:
    path = tmp_path / "SMPL_MALE.pkl"
    path.write_bytes(pickle.dumps({**random_body_arrays(), "J_regressor": csc_matrix((24, 5))}))
    with pytest.raises(ValueError, match=r"'J_regressor' has shape \(24, 5\)"):
        read_model_arrays(path)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(
        ValueError, match=r"not a body model in SMPL's layout: it lacks v_template, shapedirs"
    ):
        read_model_arrays(path)


def test_missing_file_says_where_to_get_one(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"body\.npz\. .*smpl\.is\.tue\.mpg\.de.*open body"):
        read_model_arrays(path)


def changed(key: str, index: Any, value: float) -> dict[str, np.ndarray]:
    array = random_body_arrays()[key].copy()
    array[index] = value
    return {key: array}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"posedirs": None, "f": None}, "it lacks posedirs, f"),
        ({"posedirs": np.zeros((90, 3, 459))}, r"'posedirs' has shape \(90, 3, 459\).*needs \(90, 3, 207\)"),
        ({"weights": np.zeros((90, 52))}, r"'weights' has shape \(90, 52\).*SMPL-H"),
        ({"J_regressor": np.zeros((24, 6890))}, r"'J_regressor' has shape \(24, 6890\)"),
        ({"v_template": np.float64(1)}, "'v_template' has shape"),
        (changed("v_template", (4, 1), np.nan), "'v_template' must hold finite"),
        ({"shapedirs": np.zeros((90, 3, 10), dtype=int)}, "'shapedirs' must hold finite floating-point"),
        ({"f": np.zeros((5, 3))}, "'f' must hold integers"),
        (changed("f", (3, 0), 90), r"'f' names vertices outside 0 … 89"),
        (changed("weights", 7, 0.5), "row 7 of 'weights' sums to 12 instead of 1"),
        (changed("J_regressor", 2, 0.5), "row 2 of 'J_regressor' sums to 45 instead of 1"),
        (changed("kintree_table", (0, 5), 9), "gives joint 5 the parent 9"),
        (changed("kintree_table", (0, 5), 0), "does not list its joints by depth"),
        (changed("kintree_table", (1, 5), 6), "does not list its joints by depth"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(
    path: Path, changes: dict[str, np.ndarray | None], sentence: str
) -> None:
    with pytest.raises(ValueError, match=rf"body\.npz.*{sentence}"):
        read_model_arrays(save(path, **changes))


def test_damaged_archives(path: Path) -> None:
    content = save(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"body\.npz is not an npz archive, or its end is cut off"):
        read_model_arrays(path)
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes(64) + content[middle + 64 :])
    with pytest.raises(ValueError, match=r"body\.npz, array 'posedirs', is damaged"):
        read_model_arrays(path)
    path.write_text("not an archive")
    with pytest.raises(ValueError, match=r"body\.npz is not a pickle"):
        read_model_arrays(path)
