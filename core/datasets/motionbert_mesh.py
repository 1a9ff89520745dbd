"""The mesh sets that MotionBERT distributes as pickles, mesh_det_{h36m,pw3d,coco}.pkl: detected 2D keypoints and
SMPL parameters of the neutral body, already in the camera's frame.

    {'train', 'test'}: joint_2d (N, 17, 2) px, confidence (N, 17[, 1]), source (N), smpl_pose (N, 72),
    smpl_shape (N, 10); of Human3.6M also joint_cam (N, 17, 3) mm and camera_name (N); of the others img_hw (N, 2).

Where people stand is not told. Source: lib/data/{datareader_mesh,dataset_mesh}.py of
github.com/Walter0807/MotionBERT (Zhu et al., ICCV 2023).
"""

import re
from collections import Counter
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from core.camera import assumed_intrinsics
from core.datasets.human36m import IMAGE_SIZES
from core.datasets.joint_checks import check_detections, check_joints
from core.datasets.mesh_sequences import MeshSequence, as_floats, write_mesh_sequence
from core.datasets.preparation import OnProgress, PreparationReport, find_source
from core.datasets.resumable_jobs import JobLog, JobResult, signature
from core.datasets.three_dpw import differing_counts
from core.motion.sequence import require_radians
from core.refusing_unpickler import read_pickle

MotionBertSet = Literal["h36m_mesh", "3dpw", "coco_mesh"]


class _Known(NamedTuple):
    """What is known about one of the files."""

    file_name: str
    num_frames: dict[str, int]
    fps: float
    are_stills: bool = False


_KNOWN: dict[MotionBertSet, _Known] = {
    # Every fifth frame of 50 Hz video.
    "h36m_mesh": _Known("mesh_det_h36m.pkl", {"train": 312_188, "test": 102_280}, 10.0),
    "3dpw": _Known("mesh_det_pw3d.pkl", {"train": 22_732, "test": 35_515}, 30.0),
    "coco_mesh": _Known("mesh_det_coco.pkl", {}, 1.0, are_stills=True),
}
_WHERE_TO_GET = "It comes from MotionBERT (github.com/Walter0807/MotionBERT, docs/mesh.md), unzipped."
# (fx, fy, cx, cy) px of Human3.6M's cameras, as its owners calibrated them; they are the same for all subjects.
_H36M_INTRINSICS = {
    "54138969": (1145.05, 1143.78, 512.54, 515.45),
    "55011271": (1149.68, 1147.59, 508.85, 508.06),
    "58860488": (1149.14, 1148.80, 519.82, 501.40),
    "60457274": (1145.51, 1144.77, 514.97, 501.88),
}
_COCO_IMAGE_SIZE = (640, 640)  # MotionBERT's own normalisation of all pictures
_STILLS_PER_FILE = 4096


def prepare_motionbert_mesh(
    dataset: MotionBertSet, root: Path, out: Path, *, on_progress: OnProgress, workers: int
) -> PreparationReport:
    """Writes `<out>/<split>/<source>.npz` for every run of rows of one source.

    Rows follow each other as MotionBERT reads them: frame ids are row numbers. Single pictures get even
    frame ids, so that no two are neighbours. The intrinsics of Human3.6M are its cameras' own; elsewhere they
    are assumed from the size of the picture. `workers` is not used: the time goes into reading one pickle.

    Raises:
        ValueError: The file is missing, damaged, or not in MotionBERT's layout, order or units.
    """
    known = _KNOWN[dataset]
    path = find_source(root, known.file_name, _WHERE_TO_GET)
    log = JobLog(out, {"dataset": dataset, "source": known.file_name})
    source = signature([path])
    result = log.result(known.file_name, source)
    with log.unfinished():
        if result is None:
            result = _prepare_file(dataset, path, out, on_progress)
            log.record(known.file_name, source, result)
    on_progress(len(result.outputs), len(result.outputs))
    expected = {f"{split} person-frames": count for split, count in known.num_frames.items()}
    warnings = differing_counts(known.file_name, expected, result.counts)
    return PreparationReport(result.counts, warnings + result.warnings)


prepare_h36m_mesh = partial(prepare_motionbert_mesh, "h36m_mesh")
prepare_coco_mesh = partial(prepare_motionbert_mesh, "coco_mesh")


def _prepare_file(dataset: MotionBertSet, path: Path, out: Path, on_progress: OnProgress) -> JobResult:
    content = read_pickle(path)
    splits = [split for split in ("train", "test") if isinstance(content, dict) and split in content]
    if not splits:
        raise ValueError(f"{path} has neither 'train' nor 'test'. {_WHERE_TO_GET}")
    counts: Counter[str] = Counter()
    outputs: list[str] = []
    runs_of = {split: _runs(content[split], f"{path}, {split}", dataset) for split in splits}
    num_runs = sum(map(len, runs_of.values()))
    for split, runs in runs_of.items():
        what = f"{path}, {split}"
        arrays = _checked_arrays(content[split], what)
        for name, rows in runs.items():
            sequence = _sequence(dataset, name, content[split], arrays, rows, what)
            outputs.append(f"{split}/{name}.npz")
            write_mesh_sequence(out / outputs[-1], sequence)
            counts[f"{split} sequences"] += 1
            counts[f"{split} person-frames"] += sequence.num_frames
            on_progress(len(outputs), num_runs)
    return JobResult(outputs, dict(counts))


def _runs(split: Any, what: str, dataset: MotionBertSet) -> dict[str, slice]:
    """The rows of every sequence, by a name that is fit for a file."""
    if not isinstance(split, dict):
        raise ValueError(f"{what} holds no arrays by name. {_WHERE_TO_GET}")
    num_rows = len(_column(split, "joint_2d", None, what))
    sources = list(map(str, _column(split, "source", num_rows, what)))
    cameras = (
        map(str, _column(split, "camera_name", num_rows, what)) if dataset == "h36m_mesh" else [""] * num_rows
    )
    if _KNOWN[dataset].are_stills:
        starts = range(0, num_rows, _STILLS_PER_FILE)
        return {
            f"{dataset}_{start // _STILLS_PER_FILE:04}": slice(start, start + _STILLS_PER_FILE)
            for start in starts
        }
    runs: dict[str, slice] = {}
    start = 0
    for (source, _), rows in groupby(zip(sources, cameras, strict=True)):
        name = re.sub(r"[^\w.-]+", "_", source.removesuffix(".pkl")).strip("_.") or "source"
        while name in runs:
            name = f"{name}_row{start}"
        stop = start + sum(1 for _ in rows)
        runs[name] = slice(start, stop)
        start = stop
    return runs


def _column(split: dict[str, Any], key: str, num_rows: int | None, what: str) -> Any:
    """An entry per row."""
    column: Any = split.get(key)
    is_array = isinstance(column, np.ndarray) and column.ndim > 0
    if not (is_array or isinstance(column, list | tuple)) or len(column) == 0:
        raise ValueError(f"{what} lacks '{key}', an entry per row. {_WHERE_TO_GET}")
    if num_rows not in (None, len(column)):
        raise ValueError(f"{what}: '{key}' has {len(column)} rows, 'joint_2d' {num_rows}.")
    return column


def _checked_arrays(split: dict[str, Any], what: str) -> dict[str, np.ndarray]:
    """What the file holds of the arrays that are used, by our names."""
    layout: dict[str, tuple[str, tuple[int, ...]]] = {
        "keypoints_px": ("joint_2d", (17, 2)),
        "confidence": ("confidence", (17,)),
        "poses_rotvec": ("smpl_pose", (24, 3)),
        "betas": ("smpl_shape", (10,)),
        "joints_cam_m": ("joint_cam", (17, 3)),
    }
    num_rows = len(split["joint_2d"])
    arrays: dict[str, np.ndarray] = {}
    for name, (key, shape) in layout.items():
        if key not in split:
            continue
        try:
            array = as_floats(split[key], np.float32)
            arrays[name] = array[..., :2] if array.shape == (num_rows, 17, 3) and key == "joint_2d" else array
            arrays[name] = arrays[name].reshape(num_rows, *shape)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{what}: '{key}' is no array of numbers of shape (N, {', '.join(map(str, shape))}) with a row "
                f"for each of the {num_rows} rows of 'joint_2d'. {_WHERE_TO_GET}"
            ) from error
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{what}: '{key}' holds values that are not finite; fetch the file again.")
    if "poses_rotvec" in arrays:
        require_radians(arrays["poses_rotvec"][:, 1:], f"{what} holds 'smpl_pose'")
    if "confidence" in arrays and np.median(arrays["confidence"]) <= 0:
        raise ValueError(f"{what}: most entries of 'confidence' are not above 0; fetch the file again.")
    if "joints_cam_m" in arrays:
        check_joints(arrays["joints_cam_m"], arrays["keypoints_px"], f"{what}: joint_cam", unit="mm")
        arrays["joints_cam_m"] = arrays["joints_cam_m"] / 1000
    missing = [
        key for name, (key, _) in layout.items() if name not in arrays and name in ("confidence", "betas")
    ]
    if "poses_rotvec" not in arrays:
        missing = ["smpl_pose"] if "joints_cam_m" not in arrays else [k for k in missing if k == "confidence"]
        arrays.pop("betas", None)
    if missing:
        raise ValueError(f"{what} lacks {' and '.join(missing)}. {_WHERE_TO_GET}")
    return arrays


def _sequence(
    dataset: MotionBertSet,
    name: str,
    split: dict[str, Any],
    arrays: dict[str, np.ndarray],
    rows: slice,
    what: str,
) -> MeshSequence:
    known = _KNOWN[dataset]
    values: dict[str, Any] = {key: array[rows] for key, array in arrays.items()}
    num_rows, num_frames = len(arrays["keypoints_px"]), len(values["keypoints_px"])
    frame_betas = values.get("betas")
    betas = None if frame_betas is None else frame_betas.mean(axis=0)
    if frame_betas is not None and np.ptp(frame_betas, axis=0).max() < 1e-5:
        frame_betas = None
    if dataset == "h36m_mesh":
        camera = str(_column(split, "camera_name", num_rows, what)[rows.start])
        if camera not in _H36M_INTRINSICS:
            raise ValueError(f"{what}: row {rows.start} has the camera {camera!r}, not one of Human3.6M's.")
        image_size = IMAGE_SIZES[camera]
        fx, fy, cx, cy = _H36M_INTRINSICS[camera]
        K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    else:
        image_size = _COCO_IMAGE_SIZE
        if "img_hw" in split and not known.are_stills:
            size = _column(split, "img_hw", num_rows, what)[rows.start]
            try:
                height, width = as_floats(size, np.float64).tolist()
                image_size = (int(height), int(width))
            except (TypeError, ValueError, OverflowError):
                image_size = (0, 0)
            if min(image_size) <= 0:
                raise ValueError(f"{what}: row {rows.start} has 'img_hw' {size}, not height and width.")
        K = assumed_intrinsics(image_size).double().numpy()
    check_detections(values["keypoints_px"], values["confidence"], image_size, f"{what}, {name}: 'joint_2d'")
    return MeshSequence(
        name=name,
        dataset=dataset,
        gender="neutral",
        frame_ids=np.arange(num_frames) * (2 if known.are_stills else 1),
        fps=known.fps,
        image_size=image_size,
        K=K,
        keypoints_px=values["keypoints_px"],
        confidence=values["confidence"].clip(0, 1),
        poses_rotvec=values.get("poses_rotvec"),
        translation_world_m=None,
        R_cam_world=np.tile(np.eye(3, dtype=np.float32), (num_frames, 1, 1)),
        t_cam_world_m=np.zeros((num_frames, 3), np.float32),
        betas=betas,
        joints_cam_m=values.get("joints_cam_m"),
        evaluated=np.ones(num_frames, bool),
        frame_betas=frame_betas,
    )
