"""What a prediction leaves behind: motion, mesh, picture and the facts about them."""

import itertools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from body_models.export.film import FILM_HEIGHT_PX, Scene, chosen_views, write_film
from body_models.export.glb import write_glb
from body_models.export.ground import moved
from body_models.export.mesh_files import write_obj
from body_models.export.motion import frames_for_sheet, read_motion_to_export
from body_models.parameters import BodyParameters
from body_models.render.pictures import save_png
from body_models.render.sheets import contact_sheet
from body_models.smpl import SmplBody
from core.camera import R_YDOWN_ZUP, R_YUP_YDOWN, PinholeCamera
from core.keypoints.files import KeypointFile
from core.keypoints.track import Track
from core.motion.sequence import Gender, MotionSequence, write_motion_npz
from core.progress import ProgressDisplay
from core.run_folder import write_json
from core.ssr_stf.lifting_prediction import LiftedTrack
from mesh_head.prediction_folders import FACTS, MESH_FILES, person_folders, read_facts, require_free_places
from mesh_head.predictor import ChosenPeople, RecoveredMotion, choose_people, intrinsics

# Shorter gaps in a track are bridged well enough to look at.
_LONGEST_SHOWN_GAP_S = 0.5


def upright(vertices_level_m: Float[Tensor, "vertex 3"]) -> Float[Tensor, "vertex 3"]:
    """Vertices of a level camera's frame as mesh viewers expect them: y up, its view from the front."""
    return vertices_level_m @ vertices_level_m.new_tensor(R_YUP_YDOWN).T


def write_prediction(
    out: Path,
    track: Track,
    motion: RecoveredMotion,
    body: SmplBody,
    *,
    name: str,
    frame: int | None,
    sheet_frames: int,
    renderer: str,
    gender: Gender,
    facts: Mapping[str, Any],
) -> list[Path]:
    """Writes motion.npz, motion.glb, mesh.obj, contact_sheet.png, prediction.json into `out`; returns their paths.

    motion.glb and mesh.obj stand on the ground (`RecoveredMotion.ground_offset_yup_m`); of motion.npz the camera is
    the origin.

    Args:
        track: what was recovered, as read.
        motion: what was recovered from it.
        gender: of the body.
        name: of the sequence.
        frame: video frame of the mesh, which is left out where the person is not in it; None for the one nearest to
            the middle in which they were seen.
        sheet_frames: how many frames the contact sheet shows.
        facts: what else prediction.json should say.

    Raises:
        ValueError: as `frames_for_sheet`; nothing is written.
    """
    first, last = int(motion.frame_ids[0]), int(motion.frame_ids[-1])
    if frame is None:  # the middle one, or the next in which somebody was seen
        seen = motion.frame_ids[motion.seen]
        frame = int(seen[np.abs(2 * seen - (first + last)).argmin()])
    shown = frames_for_sheet(range(last - first + 1), sheet_frames)
    dense = track.dense()
    R_level_cam, offset_m = motion.level.R_level_cam.cpu(), motion.ground_offset_yup_m
    R_yup_cam = torch.tensor(R_YUP_YDOWN) @ R_level_cam
    sheet = contact_sheet(
        torch.from_numpy(dense.keypoints_px[shown]).float(),
        torch.from_numpy(dense.confidence[shown]).float(),
        track.skeleton,
        _level_vertices_m(motion, body, shown).cpu(),
        body.faces.cpu(),
        camera=PinholeCamera(motion.K.cpu(), R_level_cam.T, torch.zeros(3), motion.image_size),
        frame_titles=frame_titles(motion, shown),
        title=f"{name}, person {track.person_id}",
        renderer=renderer,
    )
    out.mkdir(parents=True, exist_ok=True)
    write_motion_npz(
        out / "motion.npz",
        world_motion(motion, body, gender=gender, name=name, subject=track.person_id),
        seen=motion.seen,
    )
    write_glb(
        out / "motion.glb",
        body,
        moved(motion.parameters, offset_m, R_yup_cam),
        fps=motion.fps,
        R_yup_frame=R_yup_cam,
        name=name,
        start_s=first / motion.fps,
    )
    has_mesh = first <= frame <= last
    if has_mesh:
        vertices_m = upright(_level_vertices_m(motion, body, [frame - first])[0])
        write_obj(out / "mesh.obj", vertices_m + offset_m.to(vertices_m), body.faces)
    save_png(sheet, out / "contact_sheet.png")
    told = {
        "mesh_frame": frame if has_mesh else None,
        "body_model": body.model_name,
        "gender": gender,
        "ground_offset_yup_m": offset_m.tolist(),
        **facts,
    }
    write_json(out / FACTS, prediction_facts(name, track, motion) | told)
    return [out / file for file in MESH_FILES if has_mesh or file != "mesh.obj"]


def frame_titles(recovered: RecoveredMotion | LiftedTrack, shown: Sequence[int]) -> list[str]:
    """Of a contact sheet's columns; they say where nobody was seen."""
    return [
        f"frame {recovered.frame_ids[index]}" + ", unseen" * (not recovered.seen[index]) for index in shown
    ]


def require_frames(tracks: Sequence[Track], *, frame: object = None, sheet_frames: object) -> None:
    """ValueError if what is to be shown of people is not there, which is known before they are recovered.

    Args:
        frame: the video's, in which somebody has to be; None for each track's middle one.
        sheet_frames: how many frames contact sheets show.
    """
    for track in tracks:
        frames_for_sheet(_frames_of(track), sheet_frames)
    if frame is None or (type(frame) is int and len(absent_from(frame, tracks)) < len(tracks)):
        return
    first = min(_frames_of(track).start for track in tracks)
    last = max(_frames_of(track).stop for track in tracks) - 1
    whose = "any track; together they span"
    if len(tracks) == 1:
        whose = f"the track of person {tracks[0].person_id!r}, which spans"
    raise ValueError(
        f"frame={frame} is not in {whose} {first} to {last}; give another, or null for the middle one of each "
        "person."
    )


def absent_from(frame: int | None, tracks: Sequence[Track]) -> list[str]:
    """Ids of those who are not in a video frame, so that no mesh of it can be made; everybody has a middle one."""
    return [track.person_id for track in tracks if frame is not None and frame not in _frames_of(track)]


def _frames_of(track: Track) -> range:
    return range(int(track.frame_ids[0]), int(track.frame_ids[-1]) + 1)


def read_scene(folder: str | Path) -> Scene:
    """What `write_prediction` has left in a folder, or for several people in the sub-folders that it lists.

    Raises:
        ValueError: there is none, or the people were seen by different cameras, or a file is damaged.
    """
    folder = Path(folder)
    if not (folder / FACTS).is_file():
        raise ValueError(
            f"{folder} holds no prediction.json; give the folder that predict_mesh.py has left its result in."
        )
    people = read_facts(folder / FACTS).get("people")
    if people is None:
        return _scene_of([folder], str(folder))
    if not isinstance(people, list) or not people or not all(isinstance(name, str) for name in people):
        raise ValueError(f"{folder / 'prediction.json'} does not list people; run predict_mesh.py again.")
    return _scene_of([folder / Path(name).name for name in people], str(folder))


def people_to_predict(
    file: KeypointFile,
    *,
    source: str | Path,
    out: Path,
    person: str | int | None,
    min_frames: int,
    focal_px: float | None,
    sheet_frames: int,
    frame: int | None = None,
) -> ChosenPeople:
    """`choose_people` of a file, for a prediction into `out`.

    Raises:
        ValueError: as `choose_people`; or of what is known before the work: no place for somebody, no such
            focal length, or not what is to be shown (`require_frames`).
    """
    chosen = choose_people(
        file.tracks, person, source=source, one_camera=not file.report.are_stills, min_frames=min_frames
    )
    require_free_places(person_folders(out, chosen.tracks, source=source))
    intrinsics(chosen.tracks[0], focal_px)
    require_frames(chosen.tracks, frame=frame, sheet_frames=sheet_frames)
    absent = absent_from(frame, chosen.tracks)
    remarks = [f"Not in frame {frame}, so without a mesh.obj: {', '.join(absent)}."] if absent else []
    told = {"fps_is_assumed": file.report.fps_is_assumed, "focal_is_assumed": focal_px is None}
    return chosen._replace(facts=chosen.facts | told, remarks=[*chosen.remarks, *remarks])


def _scene_of(folders: Sequence[Path], name: str) -> Scene:
    for folder in folders:
        if not (folder / "motion.npz").is_file():
            joints_alone = (
                " (it holds joints alone, by predict_pose.py)" if (folder / "pose.npz").is_file() else ""
            )
            raise ValueError(
                f"{folder} holds no motion.npz{joints_alone}; give the folder that predict_mesh.py has left its "
                "result in."
            )
    people = [read_motion_to_export(folder / "motion.npz") for folder in folders]
    facts = [read_facts(folder / FACTS) for folder in folders]
    cameras = [_camera(of_person, folder / FACTS) for of_person, folder in zip(facts, folders, strict=True)]
    for folder, person, camera in zip(folders[1:], people[1:], cameras[1:], strict=True):
        same = camera.image_size == cameras[0].image_size and all(
            torch.equal(getattr(camera, part), getattr(cameras[0], part)) for part in ("K", "R_cam_world")
        )
        if not same or person.fps != people[0].fps:
            raise ValueError(
                f"{folders[0]} and {folder} are not of one camera and frame rate; run predict_mesh.py again with "
                "image_size=[height,width] and fps, or video=FILE, for both."
            )
    hidden = [
        _unseen_for_long(of_person, person.fps) for of_person, person in zip(facts, people, strict=True)
    ]
    return Scene(people, cameras[0], name, hidden, facts[0].get("image_size_is_assumed") is True)


def _unseen_for_long(facts: Mapping[str, Any], fps: float) -> frozenset[int]:
    """Frames within gaps through which nobody can say how a person moved."""
    told = facts.get("frames_without_detection")
    unseen = [frame for frame in told if isinstance(frame, int)] if isinstance(told, list) else []
    hidden: list[int] = []
    # Neighbours in a row differ by as much as their places in the list.
    for _, gap in itertools.groupby(enumerate(unseen), key=lambda place: place[1] - place[0]):
        frames = [frame for _, frame in gap]
        hidden += frames if len(frames) > _LONGEST_SHOWN_GAP_S * fps else []
    return frozenset(hidden)


def write_overlay(
    path: Path,
    folders: Sequence[Path],
    body: SmplBody,
    video: str | Path,
    renderer: str,
    display: ProgressDisplay,
) -> None:
    """A film of what `write_prediction` has left in `folders`, over the video and from the side.

    Raises:
        KeyboardInterrupt: it was one, and says how to draw the film later: all else is there.
    """
    scene = _scene_of(folders, str(path.parent))
    try:
        with display.task(
            f"Drawing {len(scene.frames)} frames over {Path(video).name}", len(scene.frames)
        ) as advance:
            write_film(
                path,
                scene,
                body,
                frames=scene.frames,
                views=chosen_views(None, scene),
                height_px=FILM_HEIGHT_PX,
                video=video,
                renderer=renderer,
                on_frame_done=advance,
            )
    except KeyboardInterrupt as interruption:
        settings = [f"prediction={path.parent}", f"video={video}", f"out={path}"]
        raise KeyboardInterrupt(
            f"{str(interruption) or 'Interrupted.'} The prediction in {path.parent} is complete but for the film: "
            f"{shlex.join(['python', 'tools/render_video.py', *settings])}"
        ) from None
    display.console.print(f"Left {path}", highlight=False)


def _camera(content: Mapping[str, Any], path: Path) -> PinholeCamera:
    try:
        K = torch.tensor(content["K"], dtype=torch.float32)
        height, width = (int(side) for side in content["image_size"])
        # Predictions of before have none, and are of level cameras.
        R_level_cam = torch.tensor(content.get("R_level_cam", torch.eye(3).tolist()), dtype=torch.float32)
        are_matrices = all(
            part.shape == (3, 3) and bool(torch.isfinite(part).all()) for part in (K, R_level_cam)
        )
        is_camera = (
            are_matrices
            and min(height, width, float(K[0, 0]), float(K[1, 1])) > 0
            and K[2].tolist() == [0.0, 0.0, 1.0]
            and bool(torch.allclose(R_level_cam @ R_level_cam.T, torch.eye(3), atol=1e-3))
        )
        if not is_camera:
            raise ValueError("no camera")
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ValueError(
            f"{path} does not say which camera it is of ({error!r}); run predict_mesh.py again."
        ) from None
    return PinholeCamera(K, R_level_cam.T, torch.zeros(3), (height, width))


def prediction_facts(name: str, track: Track, recovered: RecoveredMotion | LiftedTrack) -> dict[str, Any]:
    """What prediction.json says of every prediction: which frames of whom, before which camera."""
    return {
        "source": name,
        "person": track.person_id,
        "skeleton": track.skeleton.name,
        "frames": [int(recovered.frame_ids[0]), int(recovered.frame_ids[-1])],
        "frames_without_detection": recovered.frame_ids[~recovered.seen].tolist(),
        "fps": recovered.fps,
        "image_size": list(recovered.image_size),
        "K": recovered.K.tolist(),
        "R_level_cam": recovered.level.R_level_cam.tolist(),
        "camera_pitch_deg": recovered.level.pitch_deg,
        "camera_pitch_is_estimated": recovered.level.is_estimated,
        "image_size_is_assumed": track.image_size is None,
    }


def world_motion(
    motion: RecoveredMotion, body: SmplBody, *, gender: Gender, name: str, subject: str
) -> MotionSequence:
    """The motion in the z-up world that begins at the camera; +y is where it looks, without its pitch.

    AMASS's translation is added after the root's turn about the rest pelvis, so turning the world moves it by
    more than the turn: the pelvis is what has to be turned.
    """
    parameters = motion.parameters
    R_world_cam = parameters.root_rotmat.new_tensor(R_YDOWN_ZUP).T @ motion.level.R_level_cam.to(
        parameters.root_rotmat
    )
    rest_pelvis_m = body.shape(parameters.betas).rest_joints_m[..., 0, :]
    pelvis_world_m = (rest_pelvis_m + parameters.translation_m) @ R_world_cam.T
    turned = BodyParameters(
        root_rotmat=R_world_cam @ parameters.root_rotmat,
        body_rotmat=parameters.body_rotmat,
        betas=parameters.betas,
        translation_m=pelvis_world_m - rest_pelvis_m,
    )
    return MotionSequence(
        poses_rotvec=turned.pose_rotvec.cpu().numpy(),
        translation_world_m=turned.translation_m.cpu().numpy(),
        betas=turned.betas[0].cpu().numpy(),
        gender=gender,
        fps=motion.fps,
        name=name,
        subject=subject,
        label="recovered from 2D keypoints",
        body_model=body.model_name,
        first_frame=int(motion.frame_ids[0]),
    )


def _level_vertices_m(
    motion: RecoveredMotion, body: SmplBody, indices: list[int]
) -> Float[Tensor, "frame vertex 3"]:
    """In the axes of the level camera."""
    with torch.no_grad():
        vertices_m: Tensor = body(motion.parameters.select(indices)).vertices_m
    return vertices_m @ motion.level.R_level_cam.to(vertices_m).T
