"""A whole motion as meshes: a file per frame, or one that is rigged and moves."""

import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from body_models.export.bvh import write_bvh
from body_models.export.glb import write_glb
from body_models.export.ground import ground_offset_yup_m, moved
from body_models.export.mesh_files import write_obj, write_ply
from body_models.parameters import BodyParameters
from body_models.render.pictures import save_png
from body_models.render.sheets import motion_sheet
from body_models.smpl import SmplBody
from core.atomic_write import folder_written_whole
from core.camera import R_YDOWN_ZUP, R_YUP_ZUP
from core.motion.sequence import MotionSequence, read_motion_npz
from core.settings import require_choice, require_switch

_WRITERS = {"obj": write_obj, "ply": write_ply}
FORMATS = (*_WRITERS, "glb", "bvh")
ORIGINS = ("as_is", "ground")
# What an export names its files; the extension is the folder's.
_NUMBERED = re.compile(r"\d{6,}\.(obj|ply)")
# Posed together; bounds the memory of a long motion.
_FRAMES_AT_ONCE = 64


def export_motion(
    out: Path,
    motion: MotionSequence,
    body: SmplBody,
    *,
    formats: Sequence[str],
    frames: range,
    origin: str,
    pose_blend_shapes: bool | None,
    on_frame_done: Callable[[], None],
) -> list[Path]:
    """Writes frames of a motion below `out`, in metres, y up; returns the files and folders that it wrote.

    Args:
        formats: of `FORMATS`: obj and ply make a folder of numbered files each, glb and bvh one file, whose
            frame rate is that of the frames chosen.
        frames: see `chosen_frames`; files carry these numbers, and the glb's times count from frame 0.
        origin: of `ORIGINS`: the motion's own, or on the ground below the pelvis of the first of these frames.
        pose_blend_shapes: in the glb file, see `write_glb`.

    Raises:
        ValueError: as `check_export`; nothing is written then.
    """
    check_export(out, motion, formats=formats, origin=origin, pose_blend_shapes=pose_blend_shapes)
    folders = _numbered_folders(out, motion, formats)
    R_yup_zup = torch.tensor(R_YUP_ZUP)
    parameters = motion_parameters(motion, body, frames)
    if origin == "ground":  # of the whole motion: what is chosen may be a jump
        whole = motion_parameters(motion, body, motion.frames)
        offset_m = ground_offset_yup_m(body, [whole], above_origin=parameters, R_yup_frame=R_yup_zup)
        parameters = moved(parameters, offset_m, R_yup_zup)
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
            start_s=frames.start / motion.fps,
            R_yup_frame=R_yup_zup,
            name=motion.name,
            pose_blend_shapes=pose_blend_shapes,
        )
    if not folders:
        for _ in frames:
            on_frame_done()
        return written
    with ExitStack() as stack:
        unfinished = {
            kind: stack.enter_context(folder_written_whole(folder)) for kind, folder in folders.items()
        }
        for first in range(0, len(frames), _FRAMES_AT_ONCE):
            group = slice(first, first + _FRAMES_AT_ONCE)
            with torch.no_grad():
                vertices_m = body(parameters.select(group)).vertices_m.cpu() @ R_yup_zup.T
            for frame, frame_vertices_m in zip(frames[group], vertices_m, strict=True):
                for kind, folder in unfinished.items():
                    _WRITERS[kind](folder / f"{frame:06d}.{kind}", frame_vertices_m, body.faces)
                on_frame_done()
    return [*written, *folders.values()]


def check_export(
    out: Path,
    motion: MotionSequence,
    *,
    formats: Sequence[str],
    origin: object,
    pose_blend_shapes: bool | None,
) -> None:
    """What `export_motion` checks before it begins.

    Raises:
        ValueError: a folder to be replaced holds what is no numbered file, or a setting is none.
    """
    require_choice("origin", origin, ORIGINS)
    require_switch("pose_blend_shapes", pose_blend_shapes, may_be_null=True)
    if pose_blend_shapes and "glb" not in formats:
        raise ValueError(f"pose_blend_shapes=true is of .glb files, and formats={list(formats)} names none.")
    for name in (f"{motion.name}.glb", f"{motion.name}.bvh"):
        if (out / name).is_dir():
            raise ValueError(f"{out / name} is a folder, and a file is to be written there; move it away.")
    for kind, folder in _numbered_folders(out, motion, formats).items():
        _require_only_numbered_files(folder, kind)


def _numbered_folders(out: Path, motion: MotionSequence, formats: Sequence[str]) -> dict[str, Path]:
    return {kind: out / f"{motion.name}_{kind}" for kind in formats if kind in _WRITERS}


def _require_only_numbered_files(folder: Path, kind: str) -> None:
    """An export before this one may be replaced, and nothing else."""
    if folder.is_file():
        raise ValueError(f"{folder} is a file, and a folder is to be written there; move it away.")
    paths = sorted(folder.iterdir()) if folder.exists() else []
    # What file managers leave (.DS_Store) may go as well; a hidden folder (.git) is somebody's.
    others = [
        path.name
        for path in paths
        if path.is_dir() or not (_NUMBERED.fullmatch(path.name) or path.name.startswith("."))
    ]
    if others:
        raise ValueError(
            f"{folder} holds {others[0]}, which is no numbered .{kind} file of an earlier export; "
            "move it away or give another out=FOLDER."
        )


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


def read_motion_to_export(path: str | Path) -> MotionSequence:
    """A motion under the name that its exports take: the file's, or of a `motion.npz`, as every prediction leaves
    one, its folder's."""
    motion = read_motion_npz(path)
    return replace(motion, name=Path(path).resolve().parent.name) if motion.name == "motion" else motion


def chosen_formats(given: object) -> tuple[str, ...]:
    """A list of `FORMATS`, each taken once.

    Raises:
        ValueError: it is none.
    """
    names = given if isinstance(given, list | tuple) else []
    if not names or any(name not in FORMATS for name in names):
        raise ValueError(f"formats={given} must name some of {', '.join(FORMATS)}, as in formats=[glb].")
    return tuple(dict.fromkeys(names))


def chosen_frames(motion: MotionSequence, given: object) -> range:
    """The frames of a motion that `given` names (`frames_within`).

    They are numbered as in the video: a person who came in at frame 30 has none before.
    """
    return frames_within(motion.frames, given, motion.name)


def frames_within(whole: range, given: object, name: str) -> range:
    """The frames that `[start, stop]` or `[start, stop, step]` names, stop left out; None: all.

    Raises:
        ValueError: it names frames that are not there, or none; `name` is what they are of.
    """
    if given is None:
        return whole
    first, end = whole.start, whole.stop
    numbers = given if isinstance(given, list | tuple) else []
    is_range = len(numbers) in (2, 3) and all(type(number) is int for number in numbers)
    if not is_range or not (first <= numbers[0] < numbers[1] <= end) or min(numbers[2:], default=1) < 1:
        raise ValueError(
            f"frames={given} are no frames of {name}, which has {first} to {end - 1}; give [start, stop] "
            f"or [start, stop, step], as in frames=[{first},{end}], stop left out."
        )
    return range(*numbers)


def frames_for_sheet(frames: range, num_columns: object) -> list[int]:
    """So many of the frames, or all if there are fewer, spread evenly.

    Raises:
        ValueError: none are asked for, or no whole number.
    """
    if not isinstance(num_columns, int) or num_columns < 1:
        raise ValueError(
            f"A contact sheet shows one frame or more; sheet_frames={num_columns} is no such number."
        )
    columns = np.unique(np.linspace(0, len(frames) - 1, num_columns).round().astype(int))
    return [frames[int(column)] for column in columns]


def motion_parameters(motion: MotionSequence, body: SmplBody, frames: Sequence[int]) -> BodyParameters:
    """What some frames (`chosen_frames`) say of a body, in the z-up world, batch shape (T,); betas (1, beta).

    Betas mean something for one body model only; another one gets its mean shape (`shape_remark`).
    """
    frames = [frame - motion.first_frame for frame in frames]
    betas = torch.zeros(1, body.num_betas)
    if motion.body_model == body.model_name:
        known = torch.from_numpy(motion.betas[: body.num_betas]).float()
        betas[0, : len(known)] = known
    return BodyParameters.from_rotvec(
        torch.from_numpy(motion.poses_rotvec[frames]).float().to(body.device),
        betas.to(body.device),
        torch.from_numpy(motion.translation_world_m[frames]).float().to(body.device),
    )


def shape_remark(motion: MotionSequence, body: SmplBody, body_gender: str) -> str | None:
    """A sentence where the motion's body is another one; None where it is this one.

    Args:
        body_gender: of the file that the body was loaded from. Shapes of genders differ, and so do their means.
    """
    has_shape = bool(motion.betas.any())
    if has_shape and motion.body_model != body.model_name:
        return (
            f"The shape in {motion.name} is of the body model {motion.body_model} and means nothing to "
            f"{body.model_name}, so the meshes have the mean shape."
        )
    if not has_shape and motion.gender not in (body_gender, "neutral"):
        return (
            f"{motion.name} is of a {motion.gender} body, and these meshes have the {body_gender} one's mean "
            f"shape; body_model.gender={motion.gender} has its own."
        )
    if has_shape and motion.gender != body_gender:
        return (
            f"The shape in {motion.name} is of the {motion.gender} body, and these meshes have the "
            f"{body_gender} one's with the same coefficients; body_model.gender={motion.gender} has its own."
        )
    return None
