"""From a detector's 2D keypoints to 3D joints: lifting alone, without a body.

    python tools/predict_pose.py input=keypoints.json weights=outputs/pose/model.safetensors out=FOLDER
    python tools/predict_pose.py input=keypoints.json video=input.mp4 out=FOLDER  the video says its size and rate
    python tools/predict_pose.py input=openpose_folder person=all out=FOLDER      a sub-folder for each person

Leaves in `out`, in place of an earlier prediction there: pose.npz (joints relative to the pelvis in the camera's
axes, where the pelvis is, and how the camera stands), contact_sheet.png and prediction.json.
"""

from pathlib import Path
from typing import Any

from command_line import run_command

from core.gravity import require_pitch
from core.keypoints.files import read_keypoints
from core.keypoints.track import Track
from core.progress import ProgressDisplay
from core.run_folder import choose_device
from core.ssr_stf.lifting import load_lifting_model
from core.ssr_stf.lifting_prediction import LiftedTrack, levelled, lift_track
from mesh_head.lifting_files import write_lifted
from mesh_head.prediction_files import people_to_predict
from mesh_head.prediction_folders import in_place_of_earlier_prediction, person_folders
from mesh_head.predictor import intrinsics, of_each_person
from mesh_head.weights import find_weights


def main(config: dict[str, Any]) -> None:
    display, device, out = ProgressDisplay(), choose_device(config["device"]), Path(config["out"])
    given = {key: config[key] for key in ("format", "fps", "image_size", "counts_from", "video")}
    file = read_keypoints(config["input"], **given)
    display.console.print(str(file.report), highlight=False)
    require_pitch(config["camera_pitch_deg"])
    choice = {key: config[key] for key in ("person", "min_frames", "focal_px", "sheet_frames")}
    chosen = people_to_predict(file, source=config["input"], out=out, **choice)
    display.say(*chosen.remarks)
    model, clip = load_lifting_model(find_weights(config["weights"]))
    model = model.to(device)

    def lift(track: Track) -> LiftedTrack:
        K = intrinsics(track, config["focal_px"])
        return lift_track(model, clip, track, K, mirror_test=config["mirror_test"], device=device)

    tracks, people, remarks = of_each_person(
        chosen.tracks, lift, display.task, may_leave_out=config["person"] == "all"
    )
    people = levelled(people, config["camera_pitch_deg"], one_camera=chosen.one_camera)
    display.say(*remarks, str(people[0].level) if chosen.one_camera else None)
    told = {"weights": str(config["weights"]), **chosen.facts}
    shown = {"name": file.report.video_name, "sheet_frames": config["sheet_frames"], "facts": told}
    folders = person_folders(out, tracks, source=config["input"])
    with (
        in_place_of_earlier_prediction(out, folders) as unfinished,
        display.task("Writing joints and contact sheet", len(tracks)) as one_is_written,
    ):
        for folder, track, lifted in zip(unfinished, tracks, people, strict=True):
            paths = write_lifted(folder, track, lifted, **shown)
            one_is_written()
    for folder in folders:
        display.console.print(f"Left in {folder}: {', '.join(path.name for path in paths)}")


if __name__ == "__main__":
    run_command(main, "predict_pose", __doc__ or "")
