"""How noisy a detector's keypoints are: the severity of our noise that jitters alike, and where the two differ.

    python tools/measure_noise.py input=keypoints.json           a detector's file (docs/keypoints.md)
    python tools/measure_noise.py input=openpose_folder person=2

Models are trained with severities of 0.4 to 2.0 (noise.severity of train_mesh.py, clips.noise.severity of
train_pose.py). A detector outside of that is worth a training run of its own. Prints a table (docs/keypoints.md
says what its columns are) and leaves noise.json and noise.png in `out`.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from command_line import run_command
from hydra.utils import instantiate

from core.charts import save_figure
from core.keypoints.files import read_keypoints
from core.keypoints.noise_report import print_match
from core.keypoints.noise_statistics import match_noise, noise_figure
from core.progress import ProgressDisplay
from core.run_folder import choose_device, write_json
from core.ssr_stf.lifting import load_lifting_model
from core.ssr_stf.lifting_prediction import lift_track
from mesh_head.predictor import choose_people
from mesh_head.weights import find_weights


def main(config: dict[str, Any]) -> None:
    display, device, out = ProgressDisplay(), choose_device(config["device"]), Path(config["out"])
    noise = instantiate(config["noise"], _convert_="all")
    if noise is None:
        raise ValueError("noise=null leaves nothing to compare with; leave it out.")
    file = read_keypoints(
        config["input"],
        **{key: config[key] for key in ("format", "fps", "image_size", "counts_from", "video")},
    )
    display.console.print(str(file.report), highlight=False)
    if config["person"] == "all":
        raise ValueError("person=all would mix people; name one, or leave it out for the longest track.")
    chosen = choose_people(file.tracks, config["person"], source=config["input"], may_be_all=False)
    track = chosen.tracks[0]
    model, clip = load_lifting_model(find_weights("shipped_lifting"))
    with display.task(f"Measuring person {track.person_id}, {track.num_frames} frames"):
        lifted = lift_track(model.to(device), clip, track, mirror_test=True, device=device)
        assert lifted.pelvis_cam_m is not None
        joints_cam_m = lifted.joints + lifted.pelvis_cam_m[:, None]
        match = match_noise(track, joints_cam_m, noise, num_seeds=config["num_seeds"])
        save_figure(noise_figure(match), out / "noise.png")
    found = {"severity": match.severity, "detected": asdict(match.track), "twin": asdict(match.twin)}
    write_json(out / "noise.json", {"input": str(config["input"]), "person": track.person_id, **found})
    print_match(display.console, match, trained_with=noise.severity)
    display.console.print(f"Left in {out}: noise.json, noise.png")


if __name__ == "__main__":
    run_command(main, "measure_noise", __doc__ or "")
