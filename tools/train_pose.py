"""Train 2D → 3D pose lifting: keypoint clips in, 17 joints relative to the pelvis out.

    python tools/train_pose.py                                                    a few minutes, built-in motion
    python tools/train_pose.py experiment=pose_motion data.root=FOLDER            motion files (AMASS layout)
    python tools/train_pose.py experiment=pose_h36m_s data.root=FOLDER            prepared Human3.6M
    python tools/train_pose.py experiment=pose_3dhp_s data.root=FOLDER            prepared MPI-INF-3DHP
    python tools/train_pose.py out=outputs/pose resume=true                       go on after an interruption

tools/prepare_data.py prepares data sets. Leaves metrics.json, model.safetensors, config.yaml, commit.txt,
learning.png (errors and losses over time, drawn anew while it trains) and preview.png in `out`;
tools/train_mesh.py backbone.weights=…/model.safetensors goes on from there, and so does this command, with
head.weights=…/model.safetensors as well.
"""

from pathlib import Path
from typing import Any

from command_line import run_command

from core.folders import only_writer
from core.progress import ProgressDisplay
from core.run_folder import write_json
from core.ssr_stf.lifting_training import LiftingTask
from core.training_run import run_training
from mesh_head.lifting_files import write_lifting_preview
from mesh_head.weights import find_weights


def main(config: dict[str, Any]) -> None:
    display, out = ProgressDisplay(), Path(config["out"])
    for part in (config["backbone"], config["head"]):
        if part["weights"] is not None:
            part["weights"] = str(find_weights(part["weights"]))
    with only_writer(out):
        run = run_training(LiftingTask, config, display)
        write_json(out / "metrics.json", run.metrics)
        with display.task("Drawing the preview"):
            write_lifting_preview(out, run.task)
    rows = {"constant pose": run.metrics["baseline_constant_pose"], "this model": run.metrics["val"]}
    display.table(f"Validation split {config['validation']['split']}", rows)
    display.console.print(run.task.protocol.describe(), style="dim")
    display.console.print(f"Left in {out}: metrics.json, model.safetensors, learning.png, preview.png")


if __name__ == "__main__":
    run_command(main, "train_pose", __doc__ or "")
