"""Human3.6M as VideoPose3D distributes it: an npz of world joints, and one npz per 2D detector.

    data_3d_h36m.npz: positions_3d[subject][action] (T, 32, 3) m, world, z up, 50 fps
    data_2d_h36m_<keypoints>.npz: positions_2d[subject][action][camera] (T', 17, 2) px, T' ≥ T

The cameras are in neither file (they stand in VideoPose3D's code), so each is recovered from its 2D–3D pairs.
Source: DATASETS.md and common/h36m_dataset.py of github.com/facebookresearch/VideoPose3D.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from core.datasets.array_store import (
    add_contents,
    begin_store,
    finish_store,
    is_finished,
    read_part,
    write_part,
)
from core.datasets.camera_recovery import RecoveredCamera, recover_camera
from core.datasets.human36m import FPS, IMAGE_SIZES, SUBJECTS
from core.datasets.joint_checks import (
    as_numbers,
    check_finite,
    check_in_picture,
    check_joints,
    check_unit,
    evenly_spaced,
)
from core.datasets.preparation import Fingerprint, OnProgress, PreparationReport, find_source, fingerprint
from core.datasets.resumable_jobs import run_each
from core.refusing_unpickler import read_npz

# VideoPose3D lists the cameras in this order, everywhere.
CAMERAS = tuple(IMAGE_SIZES)
# H36M_17 in the 32 joints of Human3.6M: what stays when the static ones are dropped.
H36M_17_IN_32 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
NUM_ACTIONS = 30  # per subject; S11 has 29 or 30, as one of its videos is corrupt

_JOINTS_FILE = "data_3d_h36m.npz"
_EXACT_FILE = "data_2d_h36m_gt.npz"
_WHERE_TO_GET = (
    "VideoPose3D (github.com/facebookresearch/VideoPose3D, DATASETS.md) makes it from the original Human3.6M; "
    "see docs/datasets.md."
)
# A fine-tuned detector errs by 4 to 5 px in the median, projected keypoints by less than 0.01; joints in a wrong
# order, or of other frames, by tens.
_LARGEST_RESIDUAL_PX = {False: 12.0, True: 2.0}  # by whether the keypoints are projected joints
# A take is pointed out whose keypoints lie farther from its joints than this, and than so many times the median.
_OUTLYING_TAKE_PX, _OUTLYING_TAKE = 12.0, 3.0


def prepare_h36m_videopose3d(
    root: Path, out: Path, *, on_progress: OnProgress, workers: int, keypoints: str | None = None
) -> PreparationReport:
    """Prepares all subjects that have 3D joints, one part each.

    Args:
        keypoints: <keypoints> of data_2d_h36m_<keypoints>.npz ("cpn_ft_h36m_dbb", "gt", …); None where there is
            one file. The cameras are recovered from "gt" where that file is there too: it is exact.

    Raises:
        ValueError: If a file is missing, damaged, in another layout, order or unit.
    """
    joints_path = find_source(root, _JOINTS_FILE, _WHERE_TO_GET)
    keypoints_path = _find_keypoints(joints_path.parent, keypoints)
    exact_path = joints_path.with_name(_EXACT_FILE)
    exact_path = exact_path if exact_path.is_file() else keypoints_path
    sources = [fingerprint(path) for path in dict.fromkeys((joints_path, keypoints_path, exact_path))]
    report = PreparationReport(counts={})
    parts = begin_store(out, "h36m_videopose3d", sources)
    if parts is not None:
        report.notes.append("All had been prepared from these files before; it is kept.")
    else:
        joints = _read(joints_path, "positions_3d")
        parts = _splits(joints, joints_path)
        folders = {
            subject: out / split / subject for split, subjects in parts.items() for subject in subjects
        }
        done_before = [subject for subject, folder in folders.items() if is_finished(folder, sources)]
        if done_before:
            report.notes.append(f"Prepared before and kept: {', '.join(done_before)}.")
        total, done = sum(map(len, joints.values())), sum(len(joints[subject]) for subject in done_before)
        on_progress(done, total)
        detected = _read(keypoints_path, "positions_2d")
        exact = detected if exact_path == keypoints_path else _read(exact_path, "positions_2d")
        jobs = {}
        for subject in sorted(set(joints) - set(done_before)):
            for path, positions in ((keypoints_path, detected), (exact_path, exact)):
                if subject not in positions:
                    raise ValueError(
                        f"{path} has no {subject}, whose joints are in {joints_path}. {_WHERE_TO_GET}"
                    )
            jobs[subject] = _Job(
                subject=subject,
                joints=joints[subject],
                detected=detected[subject],
                exact=exact[subject],
                folder=folders[subject],
                sources=sources,
                what=f"{keypoints_path} with {joints_path.name}: {subject}",
                largest_residual_px=_LARGEST_RESIDUAL_PX[exact_path.name == _EXACT_FILE],
            )

        def finish(subject: str, outcome: Callable[[], None]) -> None:
            nonlocal done
            outcome()
            done += len(joints[subject])
            on_progress(done, total)

        run_each(_prepare_subject, {subject: (job,) for subject, job in jobs.items()}, workers, finish)
        finish_store(out, "h36m_videopose3d", parts, sources)
    add_contents(out, report)
    report.warnings.extend(_missing(out, parts))
    return report


def _splits(joints: Mapping[str, Any], path: Path) -> dict[str, list[str]]:
    """The subjects of each split that has any."""
    known = [subject for subjects in SUBJECTS.values() for subject in subjects]
    unknown = sorted(set(joints) - set(known))
    if unknown:
        raise ValueError(f"{path} holds {', '.join(unknown)}; Human3.6M's are {', '.join(known)}.")
    held = {
        split: [subject for subject in subjects if subject in joints] for split, subjects in SUBJECTS.items()
    }
    return {split: subjects for split, subjects in held.items() if subjects}


def _missing(out: Path, parts: Mapping[str, list[str]]) -> list[str]:
    """A sentence for every subject without joints, or with fewer takes than the complete file has."""
    warnings = []
    for split, subjects in SUBJECTS.items():
        for subject in subjects:
            if subject not in parts.get(split, ()):
                warnings.append(f"{_JOINTS_FILE} has no {subject}; the complete file has 7 subjects.")
                continue
            num_takes = len(read_part(out / split / subject).sequences) // len(CAMERAS)
            if num_takes < NUM_ACTIONS - (subject == "S11"):
                warnings.append(f"{subject} has {num_takes} takes; the complete file has {NUM_ACTIONS}.")
    return warnings


def _find_keypoints(folder: Path, keypoints: str | None) -> Path:
    if keypoints is not None:
        return find_source(folder, f"data_2d_h36m_{keypoints}.npz", _WHERE_TO_GET)
    found = sorted(folder.glob("data_2d_h36m_*.npz"))
    if not found:
        raise ValueError(f"There is no data_2d_h36m_*.npz beside {folder / _JOINTS_FILE}. {_WHERE_TO_GET}")
    if len(found) > 1:
        names = ", ".join(path.stem.removeprefix("data_2d_h36m_") for path in found)
        raise ValueError(f"{folder} has several 2D files; choose one with keypoints=… ({names}).")
    return find_source(folder, found[0].name, _WHERE_TO_GET)


def _read(path: Path, key: str) -> dict[str, Any]:
    """{subject: {action: …}} of a file."""
    content = read_npz(path)
    if key not in content:
        raise ValueError(
            f"{path} lacks '{key}' (it holds {', '.join(content) or 'nothing'}). {_WHERE_TO_GET}"
        )
    subjects = content[key]
    if isinstance(subjects, np.ndarray) and subjects.shape == ():
        subjects = subjects.item()
    tables = [subjects, *subjects.values()] if isinstance(subjects, dict) else [subjects]
    if not all(isinstance(t, dict) and t and all(isinstance(name, str) for name in t) for t in tables):
        raise ValueError(f"{path}: '{key}' is not a table of subjects and actions. {_WHERE_TO_GET}")
    return subjects


class _Job(NamedTuple):
    """One subject, for one process."""

    subject: str
    joints: Mapping[str, Any]
    detected: Mapping[str, Any]
    exact: Mapping[str, Any]
    folder: Path
    sources: list[Fingerprint]
    what: str
    largest_residual_px: float


def _prepare_subject(job: _Job) -> None:
    """Writes one subject's part."""
    takes = {action: _take(job, action) for action in sorted(job.joints)}
    notes, warnings = [], []
    arrays: dict[str, list[np.ndarray]] = {"keypoints_px": [], "joints": []}
    entries: list[dict[str, Any]] = []
    stop = 0
    for index, camera_name in enumerate(CAMERAS):
        what = f"{job.what}, camera {camera_name}"
        camera = _recover(takes, index, what, largest_px=job.largest_residual_px)
        notes.append(
            f"{job.subject}, camera {camera_name}: recovered with a median error of {camera.residual_px:.3g} px, "
            f"focal lengths {camera.K[0, 0]:.1f} and {camera.K[1, 1]:.1f} px."
        )
        errors = []
        for action, take in takes.items():
            error = np.linalg.norm(camera.project(take.world_m) - take.detected[index], axis=-1)
            errors.append(error.ravel())
            if np.median(error) > max(_OUTLYING_TAKE * camera.residual_px, _OUTLYING_TAKE_PX):
                warnings.append(
                    f"{job.subject}, {action}, camera {camera_name}: keypoints and joints lie "
                    f"{np.median(error):.0f} px apart in the median, so this take may be misaligned."
                )
            arrays["keypoints_px"].append(take.detected[index])
            arrays["joints"].append((1000 * camera.world_to_camera(take.world_m)).astype(np.float32))
            start, stop = stop, stop + len(take.world_m)
            entries.append(
                {
                    "name": f"{job.subject}_{action.replace(' ', '_')}_{camera_name}",
                    "subject": job.subject,
                    "action": action.split(" ")[0],
                    "camera": camera_name,
                    "start": start,
                    "stop": stop,
                    "joint_space": "camera_mm",
                    "image_size": IMAGE_SIZES[camera_name],
                    "K": camera.K.tolist(),
                    "fps": FPS,
                }
            )
        _require_going_together(float(np.median(np.concatenate(errors))), _LARGEST_RESIDUAL_PX[False], what)
        joints, keypoints_px = (
            np.concatenate(arrays[key][-len(takes) :]) for key in ("joints", "keypoints_px")
        )
        check_joints(joints, keypoints_px, what, unit="mm")
        check_in_picture(keypoints_px, max(IMAGE_SIZES.values()), what)
    whole = {key: np.concatenate(pieces) for key, pieces in arrays.items()}
    whole["confidence"] = np.ones((stop, 17), np.float32)
    whole["valid"] = np.ones(stop, np.bool_)
    write_part(job.folder, whole, entries, job.sources, notes=notes, warnings=warnings)


class _Take(NamedTuple):
    """One action of one subject: (T, 17, 3) m, and per camera (T, 17, 2) px."""

    world_m: Float[np.ndarray, "frame 17 3"]
    detected: list[Float[np.ndarray, "frame 17 2"]]
    exact: list[Float[np.ndarray, "frame 17 2"]]


def _take(job: _Job, action: str) -> _Take:
    what = f"{job.what}, {action!r}"
    world = as_numbers(job.joints[action], what, "3D joints")
    if world.ndim != 3 or world.shape[1:] != (32, 3) or len(world) == 0:
        raise ValueError(f"{what}: the 3D joints have shape {world.shape}, not (T, 32, 3). {_WHERE_TO_GET}")
    world = world[:, H36M_17_IN_32].astype(np.float64)
    check_finite(world, what, "3D joints")
    check_unit(world[evenly_spaced(len(world), 200)], what, "m")
    return _Take(
        world, _views(job.detected, action, len(world), what), _views(job.exact, action, len(world), what)
    )


def _views(
    positions: Mapping[str, Any], action: str, num_frames: int, what: str
) -> list[Float[np.ndarray, "frame 17 2"]]:
    """A take's 2D keypoints per camera, as long as its 3D joints."""
    if action not in positions:
        raise ValueError(f"{what} is missing from the 2D file. {_WHERE_TO_GET}")
    cameras = positions[action]
    if isinstance(cameras, np.ndarray) and cameras.ndim > 0:
        cameras = list(cameras)
    if not isinstance(cameras, list | tuple) or len(cameras) != len(CAMERAS):
        count = len(cameras) if isinstance(cameras, list | tuple) else "no list of"
        raise ValueError(f"{what}: the 2D file has {count} cameras, not {len(CAMERAS)}. {_WHERE_TO_GET}")
    views = []
    for camera in cameras:
        view = as_numbers(camera, what, "2D keypoints")
        if view.ndim != 3 or view.shape[1] != 17 or view.shape[2] < 2 or len(view) < num_frames:
            raise ValueError(
                f"{what}: 2D keypoints of shape {view.shape} do not go with 3D joints of {num_frames} frames; "
                "at least as many frames, 17 joints and 2 coordinates are needed."
            )
        # The videos run a few frames longer than the mocap.
        view = view[:num_frames, :, :2].astype(np.float32)
        check_finite(view, what, "2D keypoints")
        views.append(view)
    return views


def _recover(takes: Mapping[str, _Take], index: int, what: str, *, largest_px: float) -> RecoveredCamera:
    # Evenly from all takes, so that no long one decides.
    per_take = max(1, 20_000 // (17 * len(takes)))
    pairs = [
        (take.world_m[every].reshape(-1, 3), take.exact[index][every].reshape(-1, 2))
        for take in takes.values()
        for every in (evenly_spaced(len(take.world_m), per_take),)
    ]
    camera = recover_camera(
        np.concatenate([world for world, _ in pairs]), np.concatenate([pixels for _, pixels in pairs]), what
    )
    _require_going_together(camera.residual_px, largest_px, what)
    return camera


def _require_going_together(error_px: float, largest_px: float, what: str) -> None:
    if error_px > largest_px:
        raise ValueError(
            f"{what}: the best camera leaves a median error of {error_px:.0f} px between keypoints and "
            "projected joints, so the two files do not go together, their joints are in different orders, or an "
            "axis is mirrored. "
            f"{_WHERE_TO_GET}"
        )
