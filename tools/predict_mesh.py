"""From a detector's 2D keypoints to SMPL parameters and meshes.

    python tools/predict_mesh.py input=keypoints.json out=FOLDER
    python tools/predict_mesh.py input=keypoints.json image_size=[1080,1920] fps=25 frame=120 out=FOLDER
    python tools/predict_mesh.py input=openpose_folder person=all out=FOLDER      a sub-folder for each person
    python tools/predict_mesh.py input=keypoints.json video=input.mp4 out=FOLDER  film.mp4: bodies over the video

Leaves in `out`: motion.npz (AMASS layout, z-up world), motion.glb (rigged and animated), mesh.obj
(one frame), contact_sheet.png, and prediction.json (camera, frame ids, what the file held). For meshes of all
frames: tools/export_mesh.py motion=OUT/motion.npz
"""

from pathlib import Path
from typing import Any

from command_line import run_command
from hydra.utils import instantiate

from body_models.export.rigged import licence_remark
from body_models.render import require_renderer
from core.keypoints.files import read_keypoints
from core.progress import ProgressDisplay
from core.run_folder import choose_device
from mesh_head.prediction_files import film_path, write_overlay, write_people, write_prediction
from mesh_head.predictor import MeshPredictor, choose_tracks, describe_assumed_image_size, intrinsics
from mesh_head.weights import find_weights


def main(config: dict[str, Any]) -> None:
    require_renderer(config["renderer"])
    display, device, out = ProgressDisplay(), choose_device(config["device"]), Path(config["out"])
    file = read_keypoints(
        config["input"],
        **{key: config[key] for key in ("format", "fps", "image_size", "counts_from", "video")},
    )
    film = film_path(out, config["video"])
    display.console.print(str(file.report), highlight=False)
    tracks = choose_tracks(file.tracks, config["person"])
    if tracks[0].image_size is None:
        display.console.print(describe_assumed_image_size(tracks[0]), soft_wrap=True)
    predictor = MeshPredictor.from_file(
        find_weights(config["weights"]),
        body=instantiate(config["body_model"]["body"]),
        regressor=instantiate(config["body_model"]["regressor"]),
        device=device,
        mirror_test=config["mirror_test"],
    )
    if predictor.remark is not None:
        display.console.print(predictor.remark, soft_wrap=True)
    motions = []
    for track in tracks:
        with display.task(f"Recovering person {track.person_id}, {track.num_frames} frames"):
            motions.append(predictor.recover(track, intrinsics(track, config["focal_px"])))
    motions = predictor.levelled(motions, config["camera_pitch_deg"])
    display.console.print(str(motions[0].level), soft_wrap=True)
    told = {"weights": str(config["weights"]), "remark": predictor.remark}
    told |= {"focal_is_assumed": config["focal_px"] is None}
    drawn = {key: config[key] for key in ("frame", "sheet_frames", "renderer")}
    folders = [out / f"person_{track.person_id}" for track in tracks] if len(tracks) > 1 else [out]
    for folder, track, motion in zip(folders, tracks, motions, strict=True):
        with display.task("Writing motion, mesh and contact sheet"):
            written = write_prediction(
                folder, track, motion, predictor.body, name=Path(config["input"]).stem, facts=told, **drawn
            )
        names = ", ".join(path.name for path in written)
        display.console.print(f"Left in {written[0].parent}: {names}")
    write_people(out, folders)
    if film is not None:
        write_overlay(film, folders, predictor.body, config["video"], config["renderer"], display)
    remark = licence_remark("motion.glb", predictor.body)
    if remark is not None:
        display.console.print(remark, soft_wrap=True)


if __name__ == "__main__":
    run_command(main, "predict_mesh", __doc__ or "")
