"""A film of a motion: bodies over the video that they are from, and from other sides.

    python tools/render_video.py prediction=FOLDER video=input.mp4 out=overlay.mp4
    python tools/render_video.py prediction=FOLDER views=[camera,30,back] frames=[100,400]
    python tools/render_video.py motion=amass.npz out=walk.mp4

`prediction` is what predict_mesh.py leaves; with person=all, everybody is in the film. Writes H.264 in an .mp4.
"""

from pathlib import Path
from typing import Any

from command_line import run_command
from hydra.utils import instantiate

from body_models.export.film import Scene, chosen_views, planned_film, write_film
from body_models.export.motion import frames_within, read_motion_to_export, shape_remark
from body_models.render import require_renderer
from core.progress import ProgressDisplay
from core.run_folder import choose_device
from core.video import count_frames
from mesh_head.prediction_files import read_scene


def main(config: dict[str, Any]) -> None:
    require_renderer(config["renderer"])
    display, out = ProgressDisplay(), Path(config["out"])
    scene = _scene(config["prediction"], config["motion"])
    views = chosen_views(config["views"], scene)
    known, name, video = scene.frames, scene.name, config["video"]
    if video is not None and config["frames"] is not None:  # before anybody came, and after
        known, name = range(count_frames(video, at_least=known.stop)), str(video)
    frames = frames_within(known, config["frames"], name)
    body = instantiate(config["body_model"]["body"]).to(choose_device(config["device"]))
    for person in scene.people:
        remark = shape_remark(person, body, config["body_model"]["gender"])
        display.say(remark)
    shown = {"frames": frames, "views": views, "height_px": config["height_px"], "video": video}
    planned_film(out, scene, body, **shown)  # what cannot be is refused before any bar
    with display.task(f"Drawing {len(frames)} frames", len(frames)) as advance:
        write_film(out, scene, body, **shown, renderer=config["renderer"], on_frame_done=advance)
    display.console.print(f"Left {out}", highlight=False)


def _scene(prediction: str | None, motion: str | None) -> Scene:
    if (prediction is None) == (motion is None):
        raise ValueError("Give one of prediction=FOLDER and motion=FILE; see --help.")
    if prediction is not None:
        return read_scene(prediction)
    return Scene([read_motion_to_export(str(motion))], None, str(motion))


if __name__ == "__main__":
    run_command(main, "render_video", __doc__ or "")
