"""Model files in SMPL's layout: what is read, and the sentence for each thing that can be wrong."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from body_fixtures import SMPL_PARENTS, random_body_arrays, random_body_parameters

from body_models.model_files import load_body_model, read_model_arrays
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


def test_body_from_file_equals_body_from_arrays(path: Path) -> None:
    parameters = random_body_parameters(2, num_betas=4, dtype=torch.float32)
    expected = SmplBody.from_arrays(random_body_arrays(), num_betas=4)(parameters)
    mesh = load_body_model(save(path), num_betas=4)(parameters)
    torch.testing.assert_close(mesh.vertices_m, expected.vertices_m, atol=0, rtol=0)


def test_more_than_ten_betas(path: Path) -> None:
    np.savez(path, **random_body_arrays(num_betas=16))
    assert load_body_model(path).num_betas == 10
    assert load_body_model(path, num_betas=16).num_betas == 16
    with pytest.raises(ValueError, match="has 16 shape directions, not 300: ask for num_betas=16 or fewer"):
        load_body_model(path, num_betas=300)


def test_the_open_body_is_a_model_file() -> None:
    arrays = read_model_arrays(open_body_path())
    assert len(arrays["v_template"]) != 6890
    assert arrays["kintree_table"][0].tolist() == list(SMPL_PARENTS)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was executed",))


def test_no_pickle_is_executed(path: Path) -> None:
    bomb = np.empty(1, dtype=object)
    bomb[0] = Bomb()
    with pytest.raises(ValueError, match=r"body\.npz: 'J_regressor' is a pickled object.*toarray\(\)"):
        read_model_arrays(save(path, J_regressor=bomb))
    assert "J_regressor_prior" not in read_model_arrays(save(path, J_regressor_prior=bomb))

    pickled = path.with_name("SMPL_NEUTRAL.pkl")
    pickled.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"SMPL_NEUTRAL\.pkl is a pickle, .* does not read.*np\.savez"):
        read_model_arrays(pickled)


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
    with pytest.raises(ValueError, match=r"body\.npz: 'posedirs' is damaged"):
        read_model_arrays(path)
    path.write_text("not an archive")
    with pytest.raises(ValueError, match="is not an npz archive"):
        read_model_arrays(path)
