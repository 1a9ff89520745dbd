"""Body models in SMPL's layout: read without ever executing a pickle, checked, and said what is wrong."""

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from body_models.parameters import NUM_JOINTS

if TYPE_CHECKING:
    from body_models.smpl import SmplBody

# What a body model needs; a file may hold more.
_FLOATING_KEYS = ("v_template", "shapedirs", "posedirs", "weights", "J_regressor")
_INTEGER_KEYS = ("f", "kintree_table")
_NEEDED_KEYS = _FLOATING_KEYS + _INTEGER_KEYS
_NUM_POSE_FEATURES = 9 * (NUM_JOINTS - 1)
_WEIGHT_SUM_TOLERANCE = 1e-3

_WHERE_TO_GET = (
    "SMPL's own files come, after registration, from https://smpl.is.tue.mpg.de; "
    "the open body that is shipped (body_models.open_body) needs none."
)
_HOW_TO_CONVERT = (
    "convert it once with the tool you trust to open it: "
    "np.savez(path, **{key: np.asarray(value) for key, value in model.items()}), "
    "with J_regressor.toarray() for the sparse joint regressor"
)


def load_body_model(path: str | Path, num_betas: int = 10) -> "SmplBody":
    """A body from a model file in SMPL's layout; for the errors see `read_model_arrays`."""
    from body_models.smpl import SmplBody

    return SmplBody.from_file(path, num_betas=num_betas)


def read_model_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an npz in SMPL's layout, checked, under SMPL's own keys.

    v_template (V, 3), shapedirs (V, 3, K), posedirs (V, 3, 207), weights (V, 24), J_regressor (24, V),
    f (F, 3) and kintree_table (2, 24); in metres. The root's parent, which SMPL's files write as the largest
    unsigned integer, is returned as −1. Arrays under other keys are returned too, pickled ones left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is a pickle or holds one, or is not a body model; the sentence says what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no body model file {path}. {_WHERE_TO_GET}")
    if path.suffix == ".pkl":
        raise ValueError(
            f"{path} is a pickle, which this version does not read, because opening one executes "
            f"what is in it: {_HOW_TO_CONVERT}."
        )
    arrays = _read_npz(path)
    _verify(arrays, path)
    arrays["kintree_table"] = _kinematic_tree(arrays["kintree_table"], path)
    return arrays


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is not an npz archive, or its end is cut off. {_WHERE_TO_GET}")
    arrays = {}
    with np.load(path, allow_pickle=False) as archive:
        missing = [key for key in _NEEDED_KEYS if key not in archive.files]
        if missing:
            raise ValueError(
                f"{path} is not a body model in SMPL's layout: it lacks {', '.join(missing)}. {_WHERE_TO_GET}"
            )
        for key in archive.files:
            try:
                arrays[key] = archive[key]
            except ValueError as error:  # what numpy raises for an array of objects, which it would unpickle
                if key in _NEEDED_KEYS:
                    raise ValueError(
                        f"{path}: '{key}' is a pickled object, which is never opened here, because opening "
                        f"executes what is in it: {_HOW_TO_CONVERT}."
                    ) from error
            except (zipfile.BadZipFile, zlib.error, EOFError) as error:
                raise ValueError(f"{path}: '{key}' is damaged ({error}); fetch the file again.") from error
    return arrays


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
