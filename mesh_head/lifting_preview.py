"""What a lifting run leaves to look at: keypoints, lifted and true skeletons of validation sequences."""

from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from body_models.render.pictures import Crop, keypoint_picture, save_png
from body_models.render.sheets import grid
from core.skeleton import H36M_17
from core.ssr_stf.lifting_training import LiftingTask, evenly_chosen

_NUM_ROWS = 4
_SIZE = (300, 220)


def write_lifting_preview(out: Path, task: LiftingTask) -> None:
    """Writes `preview.png`: a row per sequence with the input and both skeletons from the front and the side.

    The frames are the middles of sequences spread evenly over the validation data, not chosen by error.
    """
    rows, titles = [], []
    for sequence in evenly_chosen(task.validation_sequences, _NUM_ROWS):
        middle = len(sequence.keypoints_px) // 2
        lifted_mm = task.lifter(task.model).joints_mm(sequence, task.protocol).cpu()[middle]
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


def _from_side(joints_mm: Float[Tensor, "17 3"], turned: bool) -> Float[Tensor, "17 2"]:
    """Seen without perspective along the camera's axis, or from the camera's left."""
    return joints_mm[:, [2, 1]] if turned else joints_mm[:, :2]


def _pictures(views: list[Float[Tensor, "17 2"]]) -> list[Image.Image]:
    """All at one scale."""
    seen = torch.ones(H36M_17.num_joints)
    scale = min(Crop.around(view, seen, _SIZE).scale for view in views)
    crops = [Crop.around(view, seen, _SIZE, scale=scale) for view in views]
    return [
        keypoint_picture(view, seen, H36M_17, size=_SIZE, crop=crop)
        for view, crop in zip(views, crops, strict=True)
    ]
