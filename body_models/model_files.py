"""Body models in SMPL's layout: found, read without ever executing a pickle, checked, and said what is wrong."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from body_models.parameters import NUM_JOINTS
from core.folders import walk
from core.refusing_unpickler import SparseMatrix, read_npz, read_pickle

if TYPE_CHECKING:
    from body_models.smpl import SmplBody

# What a body model needs; a file may hold more.
_FLOATING_KEYS = ("v_template", "shapedirs", "posedirs", "weights", "J_regressor")
_INTEGER_KEYS = ("f", "kintree_table")
_NEEDED_KEYS = _FLOATING_KEYS + _INTEGER_KEYS
_NUM_POSE_FEATURES = 9 * (NUM_JOINTS - 1)
_WEIGHT_SUM_TOLERANCE = 1e-3
_BODY_HEIGHTS_M = (1.0, 2.5)

_GENDERS = ("neutral", "male", "female")
# SMPL_NEUTRAL.pkl, basicModel_neutral_lbs_10_207_0_v1.0.0.pkl, basicmodel_m_lbs_10_207_0_v1.1.0.pkl, …
_FILE_NAME = re.compile(
    r"(?:smpl_(?P<gender>neutral|male|female)"
    r"|basicmodel_(?P<initial>neutral|n|m|f)_lbs_10_207_0_v(?P<version>\d+\.\d+\.\d+))\.(?:pkl|npz)",
    re.IGNORECASE,
)
_SEARCH_DEPTH = 4
_ZIP_START = b"PK\x03\x04"

_WHERE_TO_GET = (
    "SMPL's own files come, after registration, from https://smpl.is.tue.mpg.de (male and female, and since "
    "v1.1.0 neutral) and https://smplify.is.tue.mpg.de (neutral); "
    "the open body that is shipped (body_model=open) needs none."
)


def load_body_model(path: str | Path, num_betas: int = 10, *, gender: str | None = None) -> "SmplBody":
    """A body from a model file in SMPL's layout, or from the folder where `find_smpl_model` finds it.

    Raises:
        FileNotFoundError, ValueError: as `find_smpl_model` and `read_model_arrays`.
    """
    from body_models.smpl import SmplBody

    return SmplBody.from_file(find_smpl_model(path, gender), num_betas=num_betas)


def find_smpl_model(folder_or_file: str | Path, gender: str | None = None) -> Path:
    """Where SMPL's model file of one gender is, under any of the names it is distributed with.

    `SMPL_{NEUTRAL,MALE,FEMALE}` and `basicModel_{neutral,m,f}_lbs_10_207_0_v{1.0.0,1.1.0}`, .pkl or .npz, in
    the folder or below it (`models/smpl/…`, `SMPL_python_v.1.1.0/smpl/models/…`). Of several the one least
    deep is taken; there the short name before the long one, and the later version before the earlier.

    Args:
        folder_or_file: a file is taken whatever its name, unless that says another gender than `gender`.
        gender: neutral, male or female; None is neutral in a folder, and any for a file.

    Raises:
        FileNotFoundError: there is no such file or folder, or none of that gender in it.
        ValueError: there is no such gender, or the file's name says another.
    """
    path = Path(folder_or_file)
    if gender not in (None, *_GENDERS):
        raise ValueError(f"There is no body model of gender '{gender}': choose one of {', '.join(_GENDERS)}.")
    if path.is_file():
        named = _FILE_NAME.fullmatch(path.name)
        if gender is not None and named is not None and _gender_of(named) != gender:
            raise ValueError(
                f"{path} is the {_gender_of(named)} model by its name, but {gender} was asked for: give the "
                f"folder that holds both, or body_model.gender={_gender_of(named)}."
            )
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"There is no body model file or folder {path}. {_WHERE_TO_GET}")
    gender = gender or "neutral"
    found = []
    for depth, file in files_below(path):
        named = _FILE_NAME.fullmatch(file.name)
        if named is not None and _gender_of(named) == gender:
            version = tuple(-int(part) for part in (named["version"] or "999").split("."))
            found.append((depth, version, str(file), file))
    if not found:
        initial = "neutral" if gender == "neutral" else gender[0]
        raise FileNotFoundError(
            f"No {gender} SMPL model lies in {path}: looked for SMPL_{gender.upper()} and "
            f"basicmodel_{initial}_lbs_10_207_0_v1.0.0 or _v1.1.0, as .pkl or .npz, {_SEARCH_DEPTH} folders deep. "
            f"{_WHERE_TO_GET}"
        )
    return min(found)[-1]


def files_below(folder: Path, max_depth: int = _SEARCH_DEPTH) -> list[tuple[int, Path]]:
    """All files of a folder and the folders in it, with how deep each lies; hidden folders are left out."""
    files = []
    for root, folders, names in walk(folder, skip_unreadable=True):
        depth = len(root.relative_to(folder).parts)
        folders[:] = [] if depth == max_depth else [name for name in folders if name[0] != "."]
        files += [(depth, root / name) for name in names]
    return files


def _gender_of(named: re.Match[str]) -> str:
    initial = (named["gender"] or named["initial"])[0].lower()
    return next(gender for gender in _GENDERS if gender[0] == initial)


def read_model_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a model file in SMPL's layout (.pkl or .npz, by content), checked, under SMPL's own keys.

    v_template (V, 3), shapedirs (V, 3, K), posedirs (V, 3, 207), weights (V, 24), J_regressor (24, V),
    f (F, 3) and kintree_table (2, 24); in metres. Sparse matrices are dense, chumpy's objects their arrays.
    The root's parent, which SMPL's files write as the largest unsigned integer, is returned as −1. Arrays of
    numbers under other keys are returned too; whatever else the file holds is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file asks for more than data (`core.refusing_unpickler`), is damaged, or is not a body
            model; the sentence says what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no body model file {path}. {_WHERE_TO_GET}")
    with path.open("rb") as file:
        is_archive = file.read(len(_ZIP_START)) == _ZIP_START
    content = read_npz(path) if is_archive else read_pickle(path)
    missing = [key for key in _NEEDED_KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(
            f"{path} is not a body model in SMPL's layout: it lacks {', '.join(missing)}. {_WHERE_TO_GET}"
        )
    arrays = {}
    for key, value in content.items():
        try:
            array = _array(value)
        except ValueError as error:
            raise ValueError(f"{path}: '{key}' is damaged: {error}; fetch the file again.") from None
        if array is not None:
            arrays[key] = array
        elif key in _NEEDED_KEYS:
            raise ValueError(f"{path}: '{key}' is not an array of numbers; fetch the file again.")
    _verify(arrays, path)
    arrays["kintree_table"] = _kinematic_tree(arrays["kintree_table"], path)
    return arrays


def _array(value: Any) -> np.ndarray | None:
    if isinstance(value, np.ndarray) and value.dtype == object and value.ndim == 0:
        value = value.item()  # np.savez of a sparse matrix, or of a chumpy object
    if isinstance(value, SparseMatrix):
        return value.toarray()
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return None
    # torch knows neither another machine's byte order nor more than double precision.
    return value.astype(np.float64 if value.dtype.itemsize > 8 else value.dtype.newbyteorder("="), copy=False)


def _verify(arrays: dict[str, np.ndarray], path: Path) -> None:
    num_vertices = arrays["v_template"].shape[0] if arrays["v_template"].ndim else 0
    num_betas = arrays["shapedirs"].shape[-1] if arrays["shapedirs"].ndim else 0
    num_faces = arrays["f"].shape[0] if arrays["f"].ndim else 0
    expected_shapes = {
        "v_template": (num_vertices, 3),
        "shapedirs": (num_vertices, 3, num_betas),
        "posedirs": (num_vertices, 3, _NUM_POSE_FEATURES),
        "weights": (num_vertices, NUM_JOINTS),
        "J_regressor": (NUM_JOINTS, num_vertices),
        "f": (num_faces, 3),
        "kintree_table": (2, NUM_JOINTS),
    }
    for key, expected_shape in expected_shapes.items():
        if arrays[key].shape != expected_shape:
            raise ValueError(
                f"{path}: '{key}' has shape {arrays[key].shape}, but SMPL's layout with the file's "
                f"{num_vertices} vertices needs {expected_shape} "
                f"(SMPL-H and SMPL-X files are not SMPL files). {_WHERE_TO_GET}"
            )
    for key in _FLOATING_KEYS:
        if not (np.issubdtype(arrays[key].dtype, np.floating) and np.isfinite(arrays[key]).all()):
            raise ValueError(
                f"{path}: '{key}' must hold finite floating-point numbers; fetch the file again."
            )
    height_m = float(np.ptp(arrays["v_template"][:, 1])) if num_vertices else 0.0
    if not _BODY_HEIGHTS_M[0] <= height_m <= _BODY_HEIGHTS_M[1]:
        unit = (
            "millimetres" if height_m >= 500 else "centimetres" if height_m >= 50 else "another unit or axis"
        )
        raise ValueError(
            f"{path}: the body of 'v_template' stands {height_m:.4g} m tall along y, not {_BODY_HEIGHTS_M[0]:g} to "
            f"{_BODY_HEIGHTS_M[1]:g} m; is it in {unit}? Convert v_template, shapedirs and posedirs to metres, "
            "y up."
        )
    for key in _INTEGER_KEYS:
        if not np.issubdtype(arrays[key].dtype, np.integer):
            raise ValueError(f"{path}: '{key}' must hold integers, not {arrays[key].dtype}.")
    if arrays["f"].min(initial=0) < 0 or arrays["f"].max(initial=0) >= num_vertices:
        raise ValueError(f"{path}: 'f' names vertices outside 0 … {num_vertices - 1}; faces count from 0.")
    for key, row_sums in (
        ("weights", arrays["weights"].sum(1)),
        ("J_regressor", arrays["J_regressor"].sum(1)),
    ):
        worst = int(np.abs(row_sums - 1).argmax())
        if abs(row_sums[worst] - 1) > _WEIGHT_SUM_TOLERANCE:
            raise ValueError(f"{path}: row {worst} of '{key}' sums to {row_sums[worst]:.6g} instead of 1.")


def _kinematic_tree(kintree_table: np.ndarray, path: Path) -> np.ndarray:
    """kintree_table with −1 for the root's parent; its joints are listed by depth, as SMPL's are."""
    parents, joints = kintree_table.astype(np.int64)
    parents[0] = -1
    depths = [0]
    for joint, parent in enumerate(parents[1:].tolist(), start=1):
        if not 0 <= parent < joint:
            raise ValueError(
                f"{path}: 'kintree_table' gives joint {joint} the parent {parent}; "
                "every joint but the root needs one that is listed before it."
            )
        depths.append(depths[parent] + 1)
    if joints.tolist() != list(range(len(joints))) or depths != sorted(depths):
        raise ValueError(
            f"{path}: 'kintree_table' does not list its joints by depth from the root, as SMPL's does."
        )
    return np.stack([parents, joints])
