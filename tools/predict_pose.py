"""From a detector's 2D keypoints to 3D joints: lifting alone, without a body.

    python tools/predict_pose.py input=keypoints.json weights=outputs/pose/model.safetensors out=FOLDER
    python tools/predict_pose.py input=keypoints.json video=input.mp4 out=FOLDER  the video says its size and rate
    python tools/predict_pose.py input=openpose_folder person=all out=FOLDER      a sub-folder for each person

Leaves in `out`: pose.npz (joints relative to the pelvis in the camera's axes, where the pelvis is, and how the
camera stands), contact_sheet.png and prediction.json.
"""

from pathlib import Path
from typing import Any

from command_line import run_command

from core.keypoints.files import read_keypoints
from core.progress import ProgressDisplay
from core.run_folder import choose_device
from core.ssr_stf.lifting import load_lifting_model
from core.ssr_stf.lifting_prediction import levelled, lift_track
from mesh_head.lifting_files import write_lifted
from mesh_head.predictor import choose_tracks, describe_assumed_image_size, intrinsics
from mesh_head.weights import find_weights


def main(config: dict[str, Any]) -> None:
    display, device, out = ProgressDisplay(), choose_device(config["device"]), Path(config["out"])
    file = read_keypoints(
        config["input"],
        **{key: config[key] for key in ("format", "fps", "image_size", "counts_from", "video")},
    )
    display.console.print(str(file.report), highlight=False)
    tracks = choose_tracks(file.tracks, config["person"])
    if tracks[0].image_size is None:
        display.console.print(describe_assumed_image_size(tracks[0]), soft_wrap=True)
    model, clip = load_lifting_model(find_weights(config["weights"]))
    model = model.to(device)
    people = []
    for track in tracks:
        with display.task(f"Lifting person {track.person_id}, {track.num_frames} frames"):
            K = intrinsics(track, config["focal_px"])
            people.append(lift_track(model, clip, track, K, mirror_test=config["mirror_test"], device=device))
    people = levelled(people, config["camera_pitch_deg"])
    display.console.print(str(people[0].level), soft_wrap=True)
    for track, lifted in zip(tracks, people, strict=True):
        written = write_lifted(
            out if len(tracks) == 1 else out / f"person_{track.person_id}",
            track,
            lifted,
            name=Path(config["input"]).stem,
            sheet_frames=config["sheet_frames"],
            facts={"weights": str(config["weights"]), "focal_is_assumed": config["focal_px"] is None},
        )
        names = ", ".join(path.name for path in written)
        display.console.print(f"Left in {written[0].parent}: {names}")


if __name__ == "__main__":
    run_command(main, "predict_pose", __doc__ or "")
