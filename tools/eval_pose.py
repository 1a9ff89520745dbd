"""Evaluate lifting weights: P1 (MPJPE), P2 (PA-MPJPE), N-MPJPE, velocity and acceleration error, PCK and AUC.

    python tools/eval_pose.py weights=outputs/pose/model.safetensors              built-in motion
    python tools/eval_pose.py weights=… data=motion data.root=FOLDER              motion files (AMASS layout)
    python tools/eval_pose.py weights=… clips=prepared data=prepared_lifting data.root=FOLDER
                                                                                  prepared Human3.6M, MPI-INF-3DHP

The protocol follows from the data. Prints a table and writes the same numbers, in total, per action and per
sequence, as JSON.
"""

from pathlib import Path
from typing import Any

from command_line import run_command
from hydra.utils import instantiate

from core.progress import ProgressDisplay
from core.run_folder import choose_device, write_json
from core.ssr_stf.lifting import load_lifting_model
from core.ssr_stf.lifting_evaluation import Lifter, evaluate_lifting, frame_rate_remark
from core.ssr_stf.lifting_protocols import find_lifting_protocol
from mesh_head.weights import find_weights


def main(config: dict[str, Any]) -> None:
    display, device = ProgressDisplay(), choose_device(config["device"])
    model, clip = load_lifting_model(find_weights(config["weights"]))
    with display.task("Reading the data"):
        source = instantiate(config["clips"], _convert_="all")
        sequences = source.test_sequences(config["split"])
    protocol = find_lifting_protocol(source.protocol).with_windows(config["windows"])
    lifter = Lifter.for_weights(model.to(device), clip, source, config["mirror_test"], device)
    remark = frame_rate_remark(clip, sequences)
    display.say(remark)
    with display.task("Evaluating", len(sequences)) as advance:
        result = evaluate_lifting(lifter, sequences, protocol, advance)
    result.require_errors()
    write_json(Path(config["out"]), result.report())
    rows = {name: errors.as_dict(protocol) for name, errors in result.per_action.items()}
    total = {"all": result.total.as_dict(protocol)}
    display.table(f"Split {config['split']}", rows | total if protocol.mean_over == "actions" else total)
    display.console.print(protocol.describe(), style="dim")
    if result.seams is not None:
        at, else_ = result.seams.border_mm_per_frame, result.seams.elsewhere_mm_per_frame
        remark = f"Velocity error where a window begins or ends {at:.1f} mm/frame, elsewhere {else_:.1f}."
        display.console.print(remark, style="dim")
    display.console.print(f"In total, per action and per sequence: {config['out']}")


if __name__ == "__main__":
    run_command(main, "eval_pose", __doc__ or "")
