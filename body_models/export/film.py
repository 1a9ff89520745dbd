"""A motion as a film: in the image of the camera that recorded it, and from sides of our own.

Frames are numbered as in the video, and bodies are in the axes of a level camera: x right, y down, z forward.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from body_models.export.motion import motion_parameters
from body_models.render import BODY_COLOR, concatenate_meshes
from body_models.render.pictures import VIEW_ANGLES_DEG, View, backdrop, overlay_picture
from body_models.render.stage import ColoredMesh, Stage, stage_picture, stage_size
from body_models.smpl import SmplBody
from core.camera import R_YDOWN_ZUP, PinholeCamera
from core.motion.sequence import MotionSequence
from core.settings import require_number
from core.video import read_video, read_video_facts, require_film, require_video_of, video_written_whole

FILM_HEIGHT_PX = 720
CAMERA: View = "camera"  # beside the views that `framing_camera` knows
# One by one for the people of a film; after the last they begin again.
PERSON_COLORS = (BODY_COLOR, (0.94, 0.72, 0.52), (0.60, 0.80, 0.58), (0.82, 0.66, 0.86), (0.90, 0.84, 0.52))

_GAP_PX = 4  # between views; even, as all sides must be
# Samples per pixel edge: what moves needs fewer than a picture that stands.
_SUPERSAMPLE = 2
# Around a picture that is assumed to end at the outermost keypoints, in parts of its longer side.
_MARGIN = 0.1
# Posed together; bounds the memory of a long film.
_FRAMES_AT_ONCE = 32


@dataclass(frozen=True)
class Scene:
    """People of one video, or of none.

    Attributes:
        people: all with the video's frame rate and numbers, in a z-up world.
        camera: that recorded them, if one did; its world is theirs, y down: `R_YDOWN_ZUP`.
        name: of what they are from, for sentences.
        size_is_assumed: nobody has said how large the camera's pictures are.
        hidden: for each of the people the frames in which they are not shown, as nobody saw them; none where empty.
    """

    people: Sequence[MotionSequence]
    camera: PinholeCamera | None
    name: str
    hidden: Sequence[frozenset[int]] = ()
    size_is_assumed: bool = False

    def is_shown(self, person: int, frame: int) -> bool:
        """Whether one of the people, by number, is to be seen in a frame."""
        return frame in self.people[person].frames and not (self.hidden and frame in self.hidden[person])

    @property
    def frames(self) -> range:
        """From the first in which anybody is there to the last."""
        return range(
            min(person.frames.start for person in self.people),
            max(person.frames.stop for person in self.people),
        )


def chosen_views(given: object, scene: Scene) -> tuple[View, ...]:
    """What is filmed: a list of views, or None for what the camera saw, if one did, and another side.

    Raises:
        ValueError: it is no such list, or there is no camera to look through.
    """
    if given is None:
        return ("front" if scene.camera is None else CAMERA, "side")
    known = [str(CAMERA), *VIEW_ANGLES_DEG]
    listed = given if isinstance(given, list | tuple) else []
    # A bool is a number, too.
    are_known = [view in known or (type(view) in (int, float) and abs(view) <= 360) for view in listed]
    if not listed or not all(are_known):
        raise ValueError(
            f"views={given} must list some of {', '.join(known)}, or degrees (-360 to 360) to walk around the "
            f"people, as in views=[{CAMERA},30]."
        )
    if CAMERA in listed and scene.camera is None:
        raise ValueError(
            f"{scene.name} is a motion that no camera is known of, so there is no view {CAMERA!r}; "
            "give the folder of a prediction, or other views."
        )
    return tuple(view if isinstance(view, str) else float(view) for view in listed)


def write_film(
    path: str | Path,
    scene: Scene,
    body: SmplBody,
    *,
    frames: range,
    views: Sequence[View],
    height_px: int,
    video: str | Path | None,
    renderer: str,
    on_frame_done: Callable[[], None],
) -> None:
    """Writes an .mp4 of the people, views side by side; in the video, where there is one, at its speed.

    Args:
        frames: of the scene (`frames_within`), or of the video.
        views: `chosen_views`.
        height_px: of the film.
        renderer: of `body_models.render.render`.

    Raises:
        ValueError: as `planned_film`, or the video is damaged. Nothing is written then.
    """
    plan = planned_film(path, scene, body, frames=frames, views=views, height_px=height_px, video=video)
    recorded = read_video(video, frames) if video is not None and CAMERA in views else None
    with video_written_whole(path, fps=plan.fps, image_size=plan.image_size) as add:
        for picture in film(
            scene, body, frames=frames, views=views, height_px=height_px, recorded=recorded, renderer=renderer
        ):
            add(np.asarray(picture))
            on_frame_done()


class PlannedFilm(NamedTuple):
    """What a film will be.

    Attributes:
        fps: frames per second.
        image_size: (height, width), pixels.
    """

    fps: float
    image_size: tuple[int, int]


def planned_film(
    path: str | Path,
    scene: Scene,
    body: SmplBody,
    *,
    frames: range,
    views: Sequence[View],
    height_px: int,
    video: str | Path | None,
) -> PlannedFilm:
    """What `write_film` is going to write, by the same arguments.

    Raises:
        ValueError: the video is not that of the people; the people were recovered with another body; there is no
            film of this name, height or rate.
    """
    require_number("height_px", height_px, least=64, most=4320, whole=True)
    if height_px % 2:
        raise ValueError(f"height_px={height_px} is odd, and films have even sides; give {height_px + 1}.")
    other = next((person for person in scene.people if person.body_model != body.model_name), None)
    if scene.camera is not None and other is not None:
        raise ValueError(
            f"{scene.name} was recovered with the body model {other.body_model}, which stands elsewhere than "
            f"{body.model_name} does; give body_model={other.body_model}."
        )
    fps = scene.people[0].fps
    if video is not None:
        if scene.camera is None:
            raise ValueError(
                f"{scene.name} is a motion that no camera is known of, so it cannot be laid over {video}; give the "
                "folder of a prediction."
            )
        refuse_to_replace(path, video)
        facts = read_video_facts(video)
        size = scene.camera.image_size
        require_video_of(
            video,
            facts,
            name=scene.name,
            image_size=size,
            last_frame=frames[-1],
            size_is_assumed=scene.size_is_assumed,
        )
        fps = facts.fps
    widths = [_width(view, scene, height_px, over_video=video is not None) for view in views]
    plan = PlannedFilm(fps / frames.step, (height_px, sum(widths) + _GAP_PX * (len(widths) - 1)))
    require_film(path, fps=plan.fps, image_size=plan.image_size)
    return plan


def refuse_to_replace(film: str | Path, video: str | Path) -> None:
    """ValueError if a film would take the place of the video that it is drawn over."""
    if Path(film).exists() and Path(video).exists() and Path(film).samefile(video):
        raise ValueError(f"{film} is the video itself; give another out=…")


def _width(view: View, scene: Scene, height_px: int, *, over_video: bool) -> int:
    camera = _shown_camera(scene, height_px, over_video=over_video)
    if view == CAMERA and camera is not None:
        return camera.image_size[1]
    return stage_size(height_px)[1]


def _shown_camera(scene: Scene, height_px: int, *, over_video: bool) -> PinholeCamera | None:
    """What the camera saw; more where its picture is assumed to end at the outermost keypoints: hands do not."""
    if scene.camera is None:
        return None
    camera = _with_margin(scene.camera) if scene.size_is_assumed and not over_video else scene.camera
    return _resized(camera, height_px)


def _with_margin(camera: PinholeCamera) -> PinholeCamera:
    height, width = camera.image_size
    margin_px = round(_MARGIN * max(height, width))
    K = camera.K.clone()
    K[:2, 2] += margin_px
    size = (height + 2 * margin_px, width + 2 * margin_px)
    return PinholeCamera(K, camera.R_cam_world, camera.t_cam_world_m, size)


def film(
    scene: Scene,
    body: SmplBody,
    *,
    frames: range,
    views: Sequence[View],
    height_px: int,
    recorded: Iterable[UInt8[np.ndarray, "height width 3"]] | None,
    renderer: str,
) -> Iterator[Image.Image]:
    """The film's pictures, a frame each: its views side by side, their heights equal and all sides even.

    Args:
        frames: shown one after the other; people are in those that their motions have.
        views: `CAMERA`, or any of `framing_camera`.
        recorded: what the camera recorded, a picture for each of `frames`; None: nothing is known of it.

    Raises:
        ValueError: there are fewer recorded pictures than frames.
    """
    stage = _stage(scene, body, frames)
    shown = _shown_camera(scene, height_px, over_video=recorded is not None)
    pictures = None if recorded is None else iter(recorded)
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        group = frames[first : first + _FRAMES_AT_ONCE]
        posed = _posed(scene, body, group)
        for index, frame in enumerate(group):
            there = {
                number: vertices_m[index]
                for number, vertices_m in posed.items()
                if scene.is_shown(number, frame)
            }
            mesh = _mesh(there, body) if there else None
            background = None if pictures is None else _next_picture(pictures, frame)
            panels = []
            for view in views:
                if view == CAMERA and shown is not None:
                    panels.append(_through_camera(background, mesh, shown, renderer))
                else:
                    panels.append(
                        stage_picture(
                            stage,
                            first + index,
                            mesh,
                            view=view,
                            height_px=height_px,
                            supersample=_SUPERSAMPLE,
                            renderer=renderer,
                        )
                    )
            yield _side_by_side(panels)


def _posed(scene: Scene, body: SmplBody, frames: range) -> dict[int, Float[Tensor, "frame vertex 3"]]:
    """In a level camera's axes, by number, of the people who are in any of the frames; held at a motion's ends."""
    found = {}
    for number, person in enumerate(scene.people):
        if any(scene.is_shown(number, frame) for frame in frames):
            held = np.asarray(frames).clip(person.frames.start, person.frames.stop - 1).tolist()
            with torch.no_grad():
                vertices_m = body(motion_parameters(person, body, held)).vertices_m
            found[number] = vertices_m @ vertices_m.new_tensor(R_YDOWN_ZUP).T
    return found


def _mesh(there: Mapping[int, Float[Tensor, "vertex 3"]], body: SmplBody) -> ColoredMesh:
    """The people who are there, by their number, as one."""
    vertices_m, faces = concatenate_meshes(list(there.values()), [body.faces] * len(there))
    colors = [
        vertices_m.new_tensor(PERSON_COLORS[number % len(PERSON_COLORS)]).expand(body.num_vertices, 3)
        for number in there
    ]
    return ColoredMesh(vertices_m, faces, torch.cat(colors))


def _through_camera(
    background: Image.Image | None, mesh: ColoredMesh | None, shown: PinholeCamera, renderer: str
) -> Image.Image:
    if background is None:
        picture = backdrop(shown.image_size)
    else:
        picture = background.resize(shown.image_size[::-1], Image.Resampling.LANCZOS)
    if mesh is None:
        return picture
    return overlay_picture(
        picture,
        mesh.vertices,
        mesh.faces,
        shown,
        colors=mesh.colors,
        supersample=_SUPERSAMPLE,
        renderer=renderer,
    )


def _resized(camera: PinholeCamera, height_px: int) -> PinholeCamera:
    """The same view in a picture of another height, as near to the same shape as even sides are."""
    height, width = camera.image_size
    new_width = 2 * round(width * height_px / height / 2)
    scale = camera.K.new_tensor([new_width / width, height_px / height, 1.0])
    return PinholeCamera(
        scale[:, None] * camera.K, camera.R_cam_world, camera.t_cam_world_m, (height_px, new_width)
    )


def _next_picture(pictures: Iterator[UInt8[np.ndarray, "height width 3"]], frame: int) -> Image.Image:
    pixels = next(pictures, None)
    if pixels is None:
        raise ValueError(f"The video ends before frame {frame}; is it the one that the keypoints are from?")
    return Image.fromarray(pixels)


def _stage(scene: Scene, body: SmplBody, frames: range) -> Stage:
    lows, highs = [], []
    for first in range(0, len(frames), _FRAMES_AT_ONCE):
        group = frames[first : first + _FRAMES_AT_ONCE]
        low, high = np.full((len(group), 3), np.inf), np.full((len(group), 3), -np.inf)
        for number, vertices_m in _posed(scene, body, group).items():
            shown = np.array([scene.is_shown(number, frame) for frame in group])[:, None]
            its_low, its_high = (
                bound.cpu().double().numpy() for bound in (vertices_m.amin(1), vertices_m.amax(1))
            )
            low = np.where(shown, np.minimum(low, its_low), low)
            high = np.where(shown, np.maximum(high, its_high), high)
        lows.append(low)
        highs.append(high)
    low, high = np.concatenate(lows), np.concatenate(highs)
    if not np.isfinite(low).any():
        raise ValueError(
            f"Nobody of {scene.name} is in any of the frames {frames[0]} to {frames[-1]}; give other frames."
        )
    return Stage.around(low, high, fps=scene.people[0].fps / frames.step)


def _side_by_side(panels: Sequence[Image.Image]) -> Image.Image:
    width = sum(panel.width for panel in panels) + _GAP_PX * (len(panels) - 1)
    whole = Image.new("RGB", (width, panels[0].height), (255, 255, 255))
    left = 0
    for panel in panels:
        whole.paste(panel, (left, 0))
        left += panel.width + _GAP_PX
    return whole
