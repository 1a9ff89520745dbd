"""From a detector's 2D keypoints to SMPL parameters and meshes.

    python tools/predict_mesh.py input=keypoints.json out=FOLDER                  also fps=25 frame=120 …
    python tools/predict_mesh.py input=openpose_folder person=all out=FOLDER      a sub-folder for each person
    python tools/predict_mesh.py input=keypoints.json video=input.mp4 out=FOLDER  film.mp4: bodies over the video

Leaves in `out`, in place of an earlier prediction there: motion.npz (AMASS layout, z-up world, the camera
its origin), motion.glb (rigged and animated) and mesh.obj (one frame), both on the ground, contact_sheet.png, and
prediction.json (camera, frame ids, what the file held).
For meshes of all frames: tools/export_mesh.py motion=OUT/motion.npz
"""

from pathlib import Path
from typing import Any

from command_line import run_command
from hydra.utils import instantiate

from body_models.export.rigged import licence_remark
from body_models.render import require_renderer
from core.gravity import require_pitch
from core.keypoints.files import read_keypoints
from core.progress import ProgressDisplay
from core.run_folder import choose_device
from mesh_head.prediction_files import people_to_predict, write_overlay, write_prediction
from mesh_head.prediction_folders import film_path, in_place_of_earlier_prediction, person_folders
from mesh_head.predictor import MeshPredictor, intrinsics, of_each_person
from mesh_head.weights import find_weights


def main(config: dict[str, Any]) -> None:
    require_renderer(config["renderer"])
    display, out, gender = ProgressDisplay(), Path(config["out"]), config["body_model"]["gender"]
    how = {"device": choose_device(config["device"]), "mirror_test": config["mirror_test"]}
    given = {key: config[key] for key in ("format", "fps", "image_size", "counts_from", "video")}
    file = read_keypoints(config["input"], **given)
    require_pitch(config["camera_pitch_deg"])
    film = film_path(out, config["video"], of_stills=file.report.are_stills)
    display.console.print(str(file.report), highlight=False)
    choice = {key: config[key] for key in ("person", "min_frames", "focal_px", "frame", "sheet_frames")}
    chosen = people_to_predict(file, source=config["input"], out=out, **choice)
    predictor = MeshPredictor.from_file(
        find_weights(config["weights"]),
        body=instantiate(config["body_model"]["body"]),
        regressor=instantiate(config["body_model"]["regressor"]),
        **how | {"body_gender": gender},
    )
    display.say(*chosen.remarks, predictor.remark, licence_remark("motion.glb", predictor.body))
    tracks, motions, remarks = of_each_person(
        chosen.tracks,
        lambda track: predictor.recover(track, intrinsics(track, config["focal_px"])),
        display.task,
        may_leave_out=config["person"] == "all",
    )
    motions = predictor.levelled(motions, config["camera_pitch_deg"], one_camera=chosen.one_camera)
    with display.task("Finding the ground"):
        motions = predictor.grounded(motions, one_camera=chosen.one_camera)
    display.say(*remarks, str(motions[0].level) if chosen.one_camera else None)
    told = {key: config[key] and str(config[key]) for key in ("weights", "video")}
    told |= chosen.facts | {"remark": predictor.remark}
    shown = {key: config[key] for key in ("frame", "sheet_frames", "renderer")} | {"facts": told}
    shown |= {"name": file.report.video_name, "gender": gender}
    folders = person_folders(out, tracks, source=config["input"])
    left = []
    with (
        in_place_of_earlier_prediction(out, folders) as unfinished,
        display.task("Writing motion, mesh and contact sheet", len(tracks)) as one_is_written,
    ):
        for folder, track, motion in zip(unfinished, tracks, motions, strict=True):
            left.append(write_prediction(folder, track, motion, predictor.body, **shown))
            one_is_written()
    for folder, paths in zip(folders, left, strict=True):
        display.console.print(f"Left in {folder}: {', '.join(path.name for path in paths)}")
    if film is not None:
        write_overlay(film, folders, predictor.body, config["video"], config["renderer"], display)


if __name__ == "__main__":
    run_command(main, "predict_mesh", __doc__ or "")
