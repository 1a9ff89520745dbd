"""A whole motion as meshes: a file per frame, or one that is rigged and moves."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from body_models.export.bvh import write_bvh
from body_models.export.glb import write_glb
from body_models.export.mesh_files import write_obj, write_ply
from body_models.parameters import BodyParameters
from body_models.render.pictures import save_png
from body_models.render.sheets import motion_sheet
from body_models.smpl import SmplBody
from core.camera import R_YDOWN_ZUP
from core.motion.sequence import MotionSequence

_WRITERS = {"obj": write_obj, "ply": write_ply}
FORMATS = (*_WRITERS, "glb", "bvh")
# The z-up world of motion files to the y-up one of mesh viewers.
R_YUP_ZUP = ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0))
# Posed together; bounds the memory of a long motion.
_FRAMES_AT_ONCE = 64


def export_motion(
    out: Path,
    motion: MotionSequence,
    body: SmplBody,
    *,
    formats: Sequence[str],
    frames: range,
    pose_blend_shapes: bool,
    on_frame_done: Callable[[], None],
) -> list[Path]:
    """Writes frames of a motion below `out`, in metres, y up; returns the files and folders that it wrote.

    Args:
        formats: of `FORMATS`: obj and ply make a folder of numbered files each, glb and bvh one file, whose
            frame rate is that of the frames chosen.
        frames: of the motion, see `chosen_frames`.
        pose_blend_shapes: in the glb file, see `write_glb`.

    Raises:
        ValueError: a format is not one of those.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ValueError(f"formats={list(formats)} must name some of {', '.join(FORMATS)}.")
    chosen = list(frames)
    R_yup_zup = torch.tensor(R_YUP_ZUP)
    parameters = motion_parameters(motion, body, chosen)
    fps = motion.fps / frames.step
    written = []
    if "bvh" in formats:
        written.append(out / f"{motion.name}.bvh")
        write_bvh(written[-1], body, parameters, fps=fps, R_yup_frame=R_yup_zup)
    if "glb" in formats:
        written.append(out / f"{motion.name}.glb")
        write_glb(
            written[-1],
            body,
            parameters,
            fps=fps,
            R_yup_frame=R_yup_zup,
            name=motion.name,
            pose_blend_shapes=pose_blend_shapes,
        )
    per_frame = [name for name in formats if name in _WRITERS]
    written += [out / f"{motion.name}_{name}" for name in per_frame]
    if not per_frame:
        for _ in chosen:
            on_frame_done()
        return written
    for first in range(0, len(chosen), _FRAMES_AT_ONCE):
        group = slice(first, first + _FRAMES_AT_ONCE)
        with torch.no_grad():
            vertices_m = body(parameters.select(group)).vertices_m.cpu() @ R_yup_zup.T
        for frame, frame_vertices_m in zip(chosen[group], vertices_m, strict=True):
            for name in per_frame:
                path = out / f"{motion.name}_{name}" / f"{frame:06d}.{name}"
                _WRITERS[name](path, frame_vertices_m, body.faces)
            on_frame_done()
    return written


def write_motion_sheet(
    path: Path, motion: MotionSequence, body: SmplBody, shown: Sequence[int], *, renderer: str
) -> None:
    """Pictures of some frames, seen by a level camera that looks along the world's +y."""
    with torch.no_grad():
        vertices_m = body(motion_parameters(motion, body, shown)).vertices_m.cpu()
    sheet = motion_sheet(
        vertices_m @ torch.tensor(R_YDOWN_ZUP).T,
        body.faces.cpu(),
        frame_titles=[f"frame {frame}" for frame in shown],
        title=motion.name,
        renderer=renderer,
    )
    save_png(sheet, path)


def chosen_frames(num_frames: int, start_stop_step: Sequence[int] | None) -> range:
    """The frames of a motion that `[start, stop]` or `[start, stop, step]` names, stop left out; None: all.

    Raises:
        ValueError: it names frames that are not there, or none.
    """
    given = [0, num_frames] if start_stop_step is None else list(start_stop_step)
    is_range = len(given) in (2, 3) and all(isinstance(number, int) for number in given)
    if not is_range or not (0 <= given[0] < given[1] <= num_frames) or min(given[2:], default=1) < 1:
        raise ValueError(
            f"frames={given} are no frames of a motion of {num_frames}; give [start, stop] or "
            f"[start, stop, step], as in frames=[0,{num_frames}], stop left out."
        )
    return range(*given)


def frames_for_sheet(frames: range, num_columns: int) -> list[int]:
    """So many of the frames, or all if there are fewer, spread evenly.

    Raises:
        ValueError: none are asked for.
    """
    if num_columns < 1:
        raise ValueError(f"A contact sheet shows at least one frame; sheet_frames={num_columns} is none.")
    columns = np.unique(np.linspace(0, len(frames) - 1, num_columns).round().astype(int))
    return [frames[int(column)] for column in columns]


def motion_parameters(motion: MotionSequence, body: SmplBody, frames: Sequence[int]) -> BodyParameters:
    """What some frames of a motion say of a body, in the z-up world, batch shape (T,); betas (1, beta).

    Betas mean something for one body model only; another one gets its mean shape (`shape_remark`).
    """
    betas = torch.zeros(1, body.num_betas)
    if shape_remark(motion, body) is None:
        known = torch.from_numpy(motion.betas[: body.num_betas]).float()
        betas[0, : len(known)] = known
    return BodyParameters.from_rotvec(
        torch.from_numpy(motion.poses_rotvec[frames]).float().to(body.device),
        betas.to(body.device),
        torch.from_numpy(motion.translation_world_m[frames]).float().to(body.device),
    )


def shape_remark(motion: MotionSequence, body: SmplBody) -> str | None:
    """A sentence where the motion's betas are another body model's; None where they are the body's own."""
    owner = motion.body_model or "smpl"
    if owner == body.model_name or not motion.betas.any():
        return None
    return (
        f"The shape in {motion.name} is of the body model {owner} and means nothing to {body.model_name}, so "
        "the meshes have the mean shape."
    )
