"""MPI-INF-3DHP as P-STMO (and MotionAGFormer after it) distributes it: an npz per split with a pickled table in it.

    data_train_3dhp.npz['data']: {'S1 Seq1': [{'0': {data_2d (T, 17, 2) px, data_3d (T, 17, 3) mm}, …}, fps], …}
    data_test_3dhp.npz['data']: {'TS1': {data_2d, data_3d, valid (T)}, …}

`data_3d` is `univ_annot3`: camera frame, bodies scaled to one size, so no camera matrix joins it to `data_2d`.
Joints come in the order of MPI_INF_17 and are stored in that of H36M_17; the nose is the middle of the head.
Source: common/load_data_3dhp_mae.py of github.com/paTRICK-swk/P-STMO.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from core.datasets.array_store import (
    add_contents,
    begin_store,
    finish_store,
    is_finished,
    read_part,
    write_part,
)
from core.datasets.joint_checks import as_numbers, check_finite, check_in_picture, check_joints
from core.datasets.preparation import Fingerprint, OnProgress, PreparationReport, fingerprint
from core.keypoints.track import LARGEST_FPS
from core.refusing_unpickler import read_npz
from core.skeleton import H36M_17, MPI_INF_17, convert_keypoints

FILES = {"train": "data_train_3dhp.npz", "test": "data_test_3dhp.npz"}
TRAIN_SEQUENCES = tuple(f"S{subject} Seq{sequence}" for subject in range(1, 9) for sequence in (1, 2))
TRAIN_CAMERAS = ("0", "1", "2", "4", "5", "6", "7", "8")
# Frames of the test set that have a trusted annotation: the ones every evaluation is over.
VALID_FRAMES = {"TS1": 603, "TS2": 540, "TS3": 505, "TS4": 553, "TS5": 276, "TS6": 452}
OUTDOOR_SEQUENCES = ("TS5", "TS6")

# Where a file does not tell: the rate of most of the training set, and near enough to the test set's.
_DEFAULT_FPS = 25.0
_WHERE_TO_GET = (
    "P-STMO (github.com/paTRICK-swk/P-STMO, README.md) links both files, made from the original MPI-INF-3DHP; "
    "see docs/datasets.md."
)


def image_size(sequence: str) -> tuple[int, int]:
    """(height, width): the outdoor test sequences are Full HD, all else is square."""
    return (1080, 1920) if sequence in OUTDOOR_SEQUENCES else (2048, 2048)


def prepare_3dhp(root: Path, out: Path, *, on_progress: OnProgress, workers: int) -> PreparationReport:
    """Prepares the splits whose file is there, one part per sequence. `workers` is not used: reading is the work.

    Raises:
        ValueError: If both files are missing, or one is damaged, in another layout, order or unit.
    """
    paths = {split: root / name for split, name in FILES.items() if (root / name).is_file()}
    if not paths:
        raise ValueError(f"There is neither {' nor '.join(FILES.values())} in {root}. {_WHERE_TO_GET}")
    sources = {split: [fingerprint(path)] for split, path in paths.items()}
    all_sources = [source for split in sources.values() for source in split]
    report = PreparationReport(counts={})
    parts = begin_store(out, "3dhp", all_sources)
    if parts is not None:
        report.notes.append("All had been prepared from these files before; it is kept.")
    else:
        parts = {}
        for number, (split, path) in enumerate(paths.items()):
            table = _read(path, split)
            parts[split] = [sequence.replace(" ", "_") for sequence in sorted(table)]
            # What takes the same time is one: a sequence of the split, the splits weighted alike.
            total = len(paths) * len(table)
            for index, (name, sequence) in enumerate(zip(parts[split], sorted(table), strict=True)):
                on_progress(number * len(table) + index, total)
                if not is_finished(out / split / name, sources[split]):
                    views = list(_views(sequence, table[sequence], split, f"{path}: {sequence}"))
                    _write(out / split / name, sequence, views, sources[split])
            on_progress((number + 1) * len(table), total)
            del table
        finish_store(out, "3dhp", parts, all_sources)
    add_contents(out, report)
    _warn_of_missing(root, out, parts, report)
    return report


def _warn_of_missing(
    root: Path, out: Path, parts: Mapping[str, list[str]], report: PreparationReport
) -> None:
    for split, name in FILES.items():
        if split not in parts:
            report.warnings.append(f"{name} is not in {root}, so there is no {split} split. {_WHERE_TO_GET}")
    for sequence in TRAIN_SEQUENCES if "train" in parts else ():
        name = sequence.replace(" ", "_")
        if name not in parts["train"]:
            report.warnings.append(f"train has no {sequence}; the complete file has 16 sequences.")
            continue
        cameras = {entry["camera"] for entry in read_part(out / "train" / name).sequences}
        if len(cameras) < len(TRAIN_CAMERAS):
            report.warnings.append(f"{sequence} has {len(cameras)} cameras; the complete file has 8.")
    strangers = {
        "train": set(parts.get("train", ())) - {sequence.replace(" ", "_") for sequence in TRAIN_SEQUENCES},
        "test": set(parts.get("test", ())) - set(VALID_FRAMES),
    }
    for split, names in strangers.items():
        if names:
            report.warnings.append(
                f"{split} holds {', '.join(sorted(names))}, which MPI-INF-3DHP does not have; what is measured "
                "with it compares with nobody's results."
            )
    for sequence, expected in VALID_FRAMES.items() if "test" in parts else ():
        if sequence not in parts["test"]:
            report.warnings.append(f"test has no {sequence}; the complete file has TS1 to TS6.")
            continue
        found = int(read_part(out / "test" / sequence).arrays["valid"].sum())
        report.counts[f"test: {sequence} frames evaluated"] = found
        if found != expected:
            report.warnings.append(f"{sequence} has {found} valid frames; the complete file has {expected}.")


def _read(path: Path, split: str) -> dict[str, Any]:
    """{sequence: …} of a file."""
    content = read_npz(path)
    if "data" not in content:
        raise ValueError(f"{path} lacks 'data' (it holds {', '.join(content) or 'nothing'}). {_WHERE_TO_GET}")
    table = content["data"]
    if isinstance(table, np.ndarray) and table.shape == ():
        table = table.item()
    if not (isinstance(table, dict) and table and all(isinstance(key, str) for key in table)):
        raise ValueError(f"{path}: 'data' is not a table of sequences. {_WHERE_TO_GET}")
    # Sequences become folders, so a name must be nothing but a name.
    pattern, example = (r"TS\d+", "TS1") if split == "test" else (r"S\d+ Seq\d+", "S1 Seq1")
    for name in table:
        if not re.fullmatch(pattern, name):
            raise ValueError(f"{path}: {name}: names like '{example}' are expected. {_WHERE_TO_GET}")
    return table


class _View(NamedTuple):
    """One sequence by one camera, joints in the order of H36M_17."""

    camera: str
    fps: float
    keypoints_px: Float[np.ndarray, "frame 17 2"]
    confidence: Float[np.ndarray, "frame 17"]
    joints_mm: Float[np.ndarray, "frame 17 3"]
    valid: np.ndarray


def _views(sequence: str, content: Any, split: str, what: str) -> Iterator[_View]:
    if split == "test":
        yield _view("0", content, _DEFAULT_FPS, image_size(sequence), what)
        return
    if not (isinstance(content, list | tuple) and content and isinstance(content[0], dict) and content[0]):
        raise ValueError(f"{what} is not a list that begins with a table of cameras. {_WHERE_TO_GET}")
    fps = content[1] if len(content) > 1 else None
    rate = _DEFAULT_FPS if fps is None else _frame_rate(fps, what)
    for camera in sorted(content[0], key=str):
        yield _view(str(camera), content[0][camera], rate, image_size(sequence), f"{what}, camera {camera}")


def _frame_rate(value: Any, what: str) -> float:
    try:
        (rate,) = np.asarray(value, dtype=float).reshape(-1)
    except (ValueError, TypeError):
        rate = np.nan
    if isinstance(value, bool) or not 1 < rate <= LARGEST_FPS:
        raise ValueError(
            f"{what} gives the frame rate {value!r}; frames per second are expected. {_WHERE_TO_GET}"
        )
    return float(rate)


def _view(camera: str, content: Any, fps: float, size: tuple[int, int], what: str) -> _View:
    if not (isinstance(content, dict) and {"data_2d", "data_3d"} <= set(content)):
        raise ValueError(f"{what} lacks 'data_2d' or 'data_3d'. {_WHERE_TO_GET}")
    pixels = as_numbers(content["data_2d"], what, "2D keypoints")
    joints = as_numbers(content["data_3d"], what, "3D joints")
    num_frames = len(joints)
    if num_frames == 0:
        raise ValueError(f"{what} holds no frame; fetch the file again.")
    if pixels.shape[:2] != (num_frames, 17) or pixels.shape[2:] not in ((2,), (3,)):
        raise ValueError(
            f"{what}: 'data_2d' has shape {pixels.shape}, not ({num_frames}, 17, 2). {_WHERE_TO_GET}"
        )
    if joints.shape != (num_frames, 17, 3):
        raise ValueError(
            f"{what}: 'data_3d' has shape {joints.shape}, not ({num_frames}, 17, 3). {_WHERE_TO_GET}"
        )
    check_finite(pixels, what, "2D keypoints")
    check_finite(joints, what, "3D joints")
    valid = as_numbers(content.get("valid", np.ones(num_frames)), what, "flags of valid frames").reshape(-1)
    check_finite(valid, what, "flags of valid frames")
    if len(valid) != num_frames:
        raise ValueError(f"{what}: 'valid' has {len(valid)} entries for {num_frames} frames. {_WHERE_TO_GET}")
    ones = torch.ones(num_frames, 17)
    converted = convert_keypoints(torch.from_numpy(joints.astype(np.float32)), ones, MPI_INF_17, H36M_17)
    converted_px = convert_keypoints(
        torch.from_numpy(pixels[..., :2].astype(np.float32)), ones, MPI_INF_17, H36M_17
    )
    assert not converted.missing_joints
    view = _View(
        camera=camera,
        fps=fps,
        keypoints_px=converted_px.keypoints.numpy(),
        confidence=converted_px.confidence.numpy(),
        joints_mm=converted.keypoints.numpy(),
        valid=valid > 0,
    )
    counted = view.valid if view.valid.any() else np.ones(num_frames, np.bool_)  # elsewhere may be anything
    check_joints(view.joints_mm[counted], view.keypoints_px[counted], what, unit="mm")
    check_in_picture(view.keypoints_px[counted], size, what)
    return view


def _write(folder: Path, sequence: str, views: list[_View], sources: list[Fingerprint]) -> None:
    entries = []
    stop = 0
    for view in views:
        start, stop = stop, stop + len(view.valid)
        entries.append(
            {
                "name": f"{folder.name}_{view.camera}" if len(views) > 1 else folder.name,
                "subject": sequence.split(" ")[0],
                "action": sequence.split(" ")[-1],
                "camera": view.camera,
                "start": start,
                "stop": stop,
                "joint_space": "camera_mm",
                "image_size": image_size(sequence),
                "K": None,
                "fps": view.fps,
            }
        )
    arrays = {
        "keypoints_px": np.concatenate([view.keypoints_px for view in views]),
        "confidence": np.concatenate([view.confidence for view in views]),
        "joints": np.concatenate([view.joints_mm for view in views]),
        "valid": np.concatenate([view.valid for view in views]),
    }
    write_part(folder, arrays, entries, sources)
