"""Human3.6M as MotionBERT distributes it: one pickle with Stacked Hourglass keypoints and 2.5D joints.

    {'train', 'test'}: joint_2d (N, 17, 2) px, confidence (N, 17[, 1]), joint3d_image (N, 17, 3),
    camera_name, source, action (N); in 'test' also 2.5d_factor (N), joints_2.5d_image (N, 17, 3) mm.

Joints are in the order of H36M_17. Source: lib/data/datareader_h36m.py of github.com/Walter0807/MotionBERT.
"""

import re
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from core.datasets.array_store import (
    add_contents,
    begin_store,
    finish_store,
    is_finished,
    read_part,
    write_part,
)
from core.datasets.joint_checks import as_numbers, check_finite, check_in_picture, check_joints, evenly_spaced
from core.datasets.preparation import OnProgress, PreparationReport, find_source, fingerprint
from core.refusing_unpickler import read_pickle

FILE_NAME = "h36m_sh_conf_cam_source_final.pkl"
FPS = 50.0
SUBJECTS = {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")}
NUM_FRAMES = {"train": 1_559_752, "test": 566_920}
IMAGE_SIZES = {
    "54138969": (1002, 1000),
    "55011271": (1000, 1000),
    "58860488": (1000, 1000),
    "60457274": (1002, 1000),
}
# Of these takes, by all cameras, the mocap does not fit the video; every evaluation skips them, so their frames are
# kept with `valid` false.
BLOCK_LISTED_SEQUENCES = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")

_WHERE_TO_GET = (
    "It comes from MotionBERT (github.com/Walter0807/MotionBERT, docs/pose3d.md), unzipped; "
    "see docs/datasets.md."
)
_TEST_KEYS = ("2.5d_factor", "joints_2.5d_image")
_NAMES = ("camera_name", "source", "action")
_KEYS = ("joint_2d", "confidence", "joint3d_image", *_NAMES)
# The two ground truths of the test split may differ by rounding, or they are not of one another.
_MOST_DISAGREEMENT_MM = 5.0


def is_block_listed(source: str) -> bool:
    """Whether a source (`s_09_act_05_subact_02_ca_01`) is a block-listed take by any camera."""
    return source.startswith(BLOCK_LISTED_SEQUENCES)


def prepare_h36m(root: Path, out: Path, *, on_progress: OnProgress, workers: int) -> PreparationReport:
    """Prepares both splits. `workers` is not used: nearly all the time goes into reading the one pickle.

    Raises:
        ValueError: If the file is missing, damaged, in another layout, order or unit.
    """
    path = find_source(root, FILE_NAME, _WHERE_TO_GET)
    sources = [fingerprint(path)]
    report = PreparationReport(counts={})
    if begin_store(out, "h36m", sources) is not None:
        report.notes.append(f"Both splits had been prepared from this {path.name} before; they are kept.")
    else:
        # All is read and checked before anything is written: the file cannot be read in part anyway.
        content = read_pickle(path)
        if not isinstance(content, dict) or not {"train", "test"} <= set(content):
            raise ValueError(
                f"{path} is not MotionBERT's Human3.6M: it needs 'train' and 'test'. {_WHERE_TO_GET}"
            )
        columns = {split: _columns(content, split, path) for split in NUM_FRAMES}
        total = sum(len(of_split["source"]) for of_split in columns.values())
        on_progress(0, total)
        prepared = {}
        for split in NUM_FRAMES:
            what = f"{path}: {split}"
            remarks = _Remarks([], [])
            arrays = _check_split(columns[split], split, what, remarks)
            entries = _index(columns[split], split, what, remarks)
            arrays["valid"] = np.ones(len(arrays["joints"]), np.bool_)
            for entry in entries:
                arrays["valid"][entry["start"] : entry["stop"]] = not is_block_listed(entry["name"])
            prepared[split] = (arrays, entries, remarks)
        done = 0
        for split, (arrays, entries, remarks) in prepared.items():
            if not is_finished(out / split / "all", sources):
                write_part(out / split / "all", arrays, entries, sources, **remarks._asdict())
            done += len(arrays["joints"])
            on_progress(done, total)
        finish_store(out, "h36m", {split: ["all"] for split in NUM_FRAMES}, sources)
    add_contents(out, report)
    for split, expected in NUM_FRAMES.items():
        found = report.counts[f"{split}: frames"]
        if found != expected:
            report.warnings.append(f"{split} has {found:,} frames; the complete file has {expected:,}.")
        held = {entry["subject"] for entry in read_part(out / split / "all").sequences}
        missing = [subject for subject in SUBJECTS[split] if subject not in held]
        if missing:
            report.warnings.append(f"{split} has no sequence of {', '.join(missing)}.")
    return report


class _Remarks(NamedTuple):
    """What is said of a split, one sentence each."""

    notes: list[str]
    warnings: list[str]


def _columns(content: Mapping[str, Any], split: str, path: Path) -> dict[str, Any]:
    """The split's arrays and lists of names, of one length."""
    what = f"{path}: {split}"
    keys = _KEYS + (_TEST_KEYS if split == "test" else ())
    table = content[split]
    missing = [key for key in keys if key not in table] if isinstance(table, dict) else list(keys)
    if missing:
        raise ValueError(
            f"{what} is not in MotionBERT's layout: it lacks {', '.join(missing)}. {_WHERE_TO_GET}"
        )
    columns: dict[str, Any] = {}
    for key in keys:
        if key in _NAMES:
            if not (isinstance(table[key], list | tuple) or getattr(table[key], "ndim", 0) == 1):
                raise ValueError(f"{what}: '{key}' is no list of names. {_WHERE_TO_GET}")
            columns[key] = [str(name) for name in table[key]]
        else:
            columns[key] = as_numbers(table[key], what, f"numbers in '{key}'")
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{what}: its arrays differ in length ({', '.join(f'{k} {n}' for k, n in lengths.items())}); "
            "fetch the file again."
        )
    if 0 in lengths.values():
        raise ValueError(f"{what} holds no frame; fetch the file again.")
    return columns


def _check_split(split: Mapping[str, Any], name: str, what: str, remarks: _Remarks) -> dict[str, np.ndarray]:
    """The arrays to store, checked."""
    arrays = {
        "keypoints_px": _shaped(split["joint_2d"], (17, 2), what, "joint_2d"),
        "confidence": _shaped(split["confidence"], (17,), what, "confidence"),
        "joints": _shaped(split["joint3d_image"], (17, 3), what, "joint3d_image"),
    }
    check_finite(arrays["confidence"], what, "confidences")
    num_clipped = int(((arrays["confidence"] < 0) | (arrays["confidence"] > 1)).sum())
    if num_clipped:
        arrays["confidence"] = arrays["confidence"].clip(0, 1)
        remarks.notes.append(f"{name}: {num_clipped:,} confidences were clipped to [0, 1].")
    check_joints(arrays["joints"], arrays["keypoints_px"], what, unit=None)
    check_in_picture(arrays["keypoints_px"], max(IMAGE_SIZES.values()), what)
    if name == "test":
        arrays["mm_per_px"] = _shaped(split["2.5d_factor"], (), what, "2.5d_factor")
        arrays["joints_25d_mm"] = _shaped(split["joints_2.5d_image"], (17, 3), what, "joints_2.5d_image")
        check_finite(arrays["mm_per_px"], what, "'2.5d_factor'")
        if arrays["mm_per_px"].min() <= 0:
            raise ValueError(f"{what}: '2.5d_factor' must be above 0 in every frame; fetch the file again.")
        check_joints(arrays["joints_25d_mm"], arrays["keypoints_px"], f"{what}: joints_2.5d_image", unit="mm")
        _check_factor(arrays, what)
    return arrays


def _check_factor(arrays: Mapping[str, np.ndarray], what: str) -> None:
    sample = evenly_spaced(len(arrays["joints"]))
    scaled = arrays["joints"][sample] * arrays["mm_per_px"][sample][:, None, None]
    truth = arrays["joints_25d_mm"][sample]
    error = (scaled - scaled[:, :1]) - (truth - truth[:, :1])
    disagreement = float(np.median(np.linalg.norm(error, axis=-1)))
    if disagreement > _MOST_DISAGREEMENT_MM:
        raise ValueError(
            f"{what}: 'joint3d_image' times '2.5d_factor' is {disagreement:.0f} mm away from 'joints_2.5d_image', "
            "about the pelvis; they should be equal. Fetch the file again."
        )


def _shaped(array: np.ndarray, shape: tuple[int, ...], what: str, key: str) -> np.ndarray:
    """The array as (frame, *shape); a trailing axis of one is dropped, a third coordinate of 2D is cut off."""
    if array.shape[1:] == (*shape, 1):
        array = array[..., 0]
    if shape == (17, 2) and array.shape[1:] == (17, 3):
        array = array[..., :2]
    if array.shape[1:] != shape:
        expected = "".join(f", {n}" for n in shape)
        raise ValueError(f"{what}: '{key}' has shape {array.shape}, not (N{expected}). {_WHERE_TO_GET}")
    return array


def _index(split: Mapping[str, Any], name: str, what: str, remarks: _Remarks) -> list[dict[str, Any]]:
    """One entry per run of frames with one source, camera and action."""
    entries: list[dict[str, Any]] = []
    times_seen: dict[str, int] = {}
    runs = groupby(zip(split["source"], split["camera_name"], split["action"], strict=True))
    for (source, camera, action), frames in runs:
        start = entries[-1]["stop"] if entries else 0
        subject = re.match(r"s_0*(\d+)_", source)
        if subject is None:
            raise ValueError(
                f"{what}: frame {start} has the source {source!r}; names like 's_09_act_05_subact_02_ca_01' "
                f"are expected. {_WHERE_TO_GET}"
            )
        if camera not in IMAGE_SIZES:
            raise ValueError(
                f"{what}: frame {start} has the camera {camera!r}; Human3.6M's are {', '.join(IMAGE_SIZES)}."
            )
        times_seen[source] = times_seen.get(source, 0) + 1
        entries.append(
            {
                "name": source if times_seen[source] == 1 else f"{source}#{times_seen[source]}",
                "subject": f"S{subject[1]}",
                "action": action,
                "camera": camera,
                "start": start,
                "stop": start + sum(1 for _ in frames),
                "joint_space": "image_25d",
                "image_size": IMAGE_SIZES[camera],
                "K": None,
                "fps": FPS,
            }
        )
    again = [source for source, times in times_seen.items() if times > 1]
    if again:
        remarks.warnings.append(
            f"{name}: {len(again)} sources come in several pieces, {again[0]!r} for one; each piece is a sequence."
        )
    strangers = {entry["subject"] for entry in entries} - set(SUBJECTS[name])
    of_test = strangers & set(SUBJECTS["test"])
    if of_test:
        raise ValueError(
            f"The training split holds {', '.join(sorted(of_test))}, whom results are reported on; nothing learned "
            f"from it could be compared. Fetch the original file, in which it has {', '.join(SUBJECTS[name])}."
        )
    if strangers:
        remarks.warnings.append(
            f"{name} holds {', '.join(sorted(strangers))}, which the standard split does not put there."
        )
    return entries
