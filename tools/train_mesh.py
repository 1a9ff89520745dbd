"""Train the mesh model: 2D keypoint clips in, SMPL parameters out.

    python tools/train_mesh.py                                                    a few minutes, built-in motion
    python tools/train_mesh.py experiment=motion data.root=FOLDER                 motion files (AMASS layout)
    python tools/train_mesh.py experiment=scratch                                 built-in motion, from nothing
    python tools/train_mesh.py out=outputs/demo resume=true                       go on after an interruption

Leaves metrics.json, model.safetensors, config.yaml, commit.txt, learning.png (errors and losses over time, drawn
anew while it trains), mesh.obj, motion.glb (animated) and preview.png in `out`.
"""

from pathlib import Path
from typing import Any

from command_line import run_command

from body_models.render import require_renderer
from core.folders import only_writer
from core.progress import ProgressDisplay
from core.run_folder import write_json
from core.training_run import run_training
from mesh_head.preview import write_preview
from mesh_head.training import MeshRecoveryTask


def main(config: dict[str, Any]) -> None:
    require_renderer(config["renderer"])
    display, out = ProgressDisplay(), Path(config["out"])
    with only_writer(out):
        result = run_training(MeshRecoveryTask, config, display)
        write_json(out / "metrics.json", result.metrics)
        with display.task("Drawing the preview"):
            write_preview(out, result.task, renderer=config["renderer"])
    rows = {"mean pose": result.metrics["baseline_mean_pose"], "this model": result.metrics["val"]}
    display.table(f"Validation motion, protocol {result.metrics['protocol']}", rows)
    display.console.print(
        f"Left in {out}: metrics.json, model.safetensors, learning.png, mesh.obj, motion.glb, preview.png"
    )


if __name__ == "__main__":
    run_command(main, "train_mesh", __doc__ or "")
