"""What lifting leaves: of a run, keypoints, lifted and true skeletons to look at; of a prediction, its files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from body_models.export.motion import frames_for_sheet
from body_models.render.pictures import Crop, keypoint_picture, save_png
from body_models.render.sheets import grid
from core.atomic_write import written_whole
from core.keypoints.track import Track
from core.run_folder import write_json
from core.skeleton import H36M_17
from core.ssr_stf.lifting_prediction import LiftedTrack
from core.ssr_stf.lifting_training import LiftingTask, evenly_chosen
from mesh_head.prediction_files import frame_titles, prediction_facts

_NUM_ROWS = 4
_SIZE = (300, 220)


def write_lifting_preview(out: Path, task: LiftingTask) -> None:
    """Writes `preview.png`: a row per sequence with the input and both skeletons from the front and the side.

    The frames are the middles of sequences spread evenly over the validation data, not chosen by error; where the
    middle does not count, the frame next to it that does.
    """
    rows, titles = [], []
    counted = [
        sequence
        for sequence in task.validation_sequences
        if np.any(sequence.evaluated) and task.protocol.evaluates(sequence.name)
    ]
    for sequence in evenly_chosen(counted, _NUM_ROWS):
        frames = np.flatnonzero(sequence.evaluated)
        middle = int(frames[np.abs(frames - len(sequence.evaluated) // 2).argmin()])
        wanted = np.arange(len(sequence.evaluated)) == middle
        lifted_mm = task.lifter(task.model).joints_mm(sequence, task.protocol, wanted=wanted).cpu()[middle]
        true_mm = torch.from_numpy(sequence.true_joints_mm[middle].copy()).float()
        true_mm = true_mm - true_mm[:1]
        keypoints_px = torch.from_numpy(sequence.keypoints_px[middle].copy()).float()
        confidence = torch.from_numpy(sequence.confidence[middle].copy()).float()
        views = [
            _from_side(joints_mm, turned) for joints_mm in (lifted_mm, true_mm) for turned in (False, True)
        ]
        rows.append([keypoint_picture(keypoints_px, confidence, H36M_17, size=_SIZE), *_pictures(views)])
        error_mm = float((lifted_mm - true_mm).norm(dim=-1).mean())
        titles.append(f"{(sequence.action or sequence.name).replace(' | ', chr(10))}\n{error_mm:.0f} mm")
    columns = [
        "input keypoints",
        "lifted, front",
        "lifted, side",
        "ground truth, front",
        "ground truth, side",
    ]
    save_png(
        grid(
            rows, column_titles=columns, row_titles=titles, title="Validation: from 2D keypoints to 3D joints"
        ),
        out / "preview.png",
    )


def write_lifted(
    out: Path,
    track: Track,
    lifted: LiftedTrack,
    *,
    name: str,
    sheet_frames: int,
    facts: Mapping[str, Any],
) -> list[Path]:
    """Writes pose.npz, contact_sheet.png and prediction.json into `out`; returns the paths.

    Args:
        track: what was lifted, as read.
        name: of the sequence.
        facts: what else prediction.json should say.

    Raises:
        ValueError: the sheet would be empty; nothing is written.
    """
    shown = frames_for_sheet(range(len(lifted.frame_ids)), sheet_frames)
    sheet = _sheet(track.dense(), lifted, shown, title=f"{name}, person {track.person_id}")
    arrays: dict[str, Any] = {
        "joints": lifted.joints.cpu().numpy(),
        "unit": np.array(lifted.unit),
        "joint_names": np.array(H36M_17.joint_names),
        "frame_ids": lifted.frame_ids,
        "seen": lifted.seen,
        "fps": np.array(lifted.fps),
        "R_level_cam": lifted.level.R_level_cam.numpy(),
    }
    if lifted.pelvis_cam_m is not None:
        arrays["pelvis_cam_m"] = lifted.pelvis_cam_m.cpu().numpy()
    with written_whole(out / "pose.npz") as file:
        np.savez(file, **arrays)
    save_png(sheet, out / "contact_sheet.png")
    write_json(
        out / "prediction.json", prediction_facts(name, track, lifted) | {"unit": lifted.unit, **facts}
    )
    return [out / file for file in ("pose.npz", "contact_sheet.png", "prediction.json")]


def _sheet(dense: Track, lifted: LiftedTrack, shown: Sequence[int], *, title: str) -> Image.Image:
    inputs = [
        keypoint_picture(
            torch.from_numpy(dense.keypoints_px[index]).float(),
            torch.from_numpy(dense.confidence[index]).float(),
            dense.skeleton,
            size=_SIZE,
        )
        for index in shown
    ]
    joints = lifted.joints.cpu() @ lifted.level.R_level_cam.T
    views = [_from_side(joints[index], turned) for turned in (False, True) for index in shown]
    pictures = _pictures(views)
    return grid(
        [inputs, pictures[: len(shown)], pictures[len(shown) :]],
        column_titles=frame_titles(lifted, shown),
        row_titles=["input\nkeypoints", "lifted,\nfront", "lifted,\nside"],
        title=title,
        note="Left is orange, right is blue; faint where the detector was unsure.",
    )


def _from_side(joints: Float[Tensor, "17 3"], turned: bool) -> Float[Tensor, "17 2"]:
    """Seen without perspective along the camera's axis, or from its right."""
    return joints[:, [2, 1]] if turned else joints[:, :2]


def _pictures(views: list[Float[Tensor, "17 2"]]) -> list[Image.Image]:
    """All at one scale."""
    seen = torch.ones(H36M_17.num_joints)
    scale = min(Crop.around(view, seen, _SIZE).scale for view in views)
    crops = [Crop.around(view, seen, _SIZE, scale=scale) for view in views]
    return [
        keypoint_picture(view, seen, H36M_17, size=_SIZE, crop=crop)
        for view, crop in zip(views, crops, strict=True)
    ]
