"""Evaluate mesh weights on motion: MPJPE, PA-MPJPE, MPVE and acceleration error under a declared protocol.

    python tools/eval_mesh.py                                                     shipped weights, built-in motion
    python tools/eval_mesh.py weights=outputs/demo/model.safetensors data=motion data.root=FOLDER data.split=test
    python tools/eval_mesh.py protocol=[wham,motionbert] out=result.json

Prints a table and writes the same numbers, in total and per sequence, as JSON.
"""

from pathlib import Path
from typing import Any

from command_line import run_command
from hydra.utils import instantiate

from core.progress import ProgressDisplay
from core.run_folder import choose_device, write_json
from mesh_head.evaluation import evaluate_motion
from mesh_head.motion_data import ClipSynthesizer
from mesh_head.protocols import find_protocol
from mesh_head.supervision import SupervisedBody
from mesh_head.weights import find_weights, load_model


def main(config: dict[str, Any]) -> None:
    display, device = ProgressDisplay(), choose_device(config["device"])
    names = config["protocol"] if isinstance(config["protocol"], list) else [config["protocol"]]
    protocols = [find_protocol(name) for name in names]
    split = config["data"].pop("split")
    model, clip = load_model(find_weights(config["weights"]))
    with display.task("Reading body and motion"):
        body = instantiate(config["body_model"]["body"]).to(device)
        regressor = instantiate(config["body_model"]["regressor"]).to(device)
        sequences = instantiate(config["data"], _convert_="all").read(split)
    evaluation = instantiate(config["evaluation"])
    supervised = SupervisedBody(body=body, regressor=regressor, num_vertices=1)
    synthesizer = ClipSynthesizer(
        body=supervised, cameras=instantiate(config["cameras"]), noise=instantiate(config["noise"])
    ).to(device)

    results = {}
    for name, evaluated in (("this model", model), ("mean pose", model.head.mean_pose_model())):
        with display.task(f"Evaluating {name}", len(evaluation.stretches(sequences))) as advance:
            results[name] = evaluate_motion(
                evaluated.to(device).eval(),
                sequences,
                evaluation=evaluation,
                synthesizer=synthesizer,
                body=body,
                regressor=regressor,
                protocols=protocols,
                window_frames=int(clip["num_frames"]),
                device=device,
                on_stretch_done=advance,
            )
    reports = [results["this model"].report(p, results["mean pose"]) for p in protocols]
    write_json(Path(config["out"]), reports[0] if len(reports) == 1 else {"results": reports})
    for protocol in protocols:
        rows = {name: result.total[protocol.name].as_dict() for name, result in results.items()}
        display.table(f"{split} motion, protocol {protocol.name}", rows)
        display.console.print(protocol.describe(), style="dim")
    display.console.print(f"Per sequence and in total: {config['out']}")


if __name__ == "__main__":
    run_command(main, "eval_mesh", __doc__ or "")
