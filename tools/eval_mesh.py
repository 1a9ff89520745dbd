"""Evaluate mesh weights: MPJPE, PA-MPJPE, MPVE, acceleration error, PCK, AUC, each under a declared protocol.

    python tools/eval_mesh.py                                                     shipped weights, built-in motion
    python tools/eval_mesh.py weights=outputs/demo/model.safetensors data=motion data.root=FOLDER data.split=test
    python tools/eval_mesh.py data=3dpw data.root=PREPARED protocol=[wham,motionbert]
    python tools/eval_mesh.py data=3dpw data.root=PREPARED body_model=smpl body_model.path=FOLDER workers=8

Prints a table per protocol and writes the same numbers, in total and per sequence, as JSON; for recorded people
(data=3dpw) as CSV too, with a picture of the worst frames.
"""

from functools import partial
from typing import Any

from command_line import run_command
from hydra.utils import instantiate

from body_models.render import require_renderer
from core.progress import ProgressDisplay
from core.run_folder import choose_device
from mesh_head import benchmark_evaluation as benchmark
from mesh_head.evaluation import evaluate_motion
from mesh_head.evaluation_report import report_motion, report_path, report_recordings
from mesh_head.motion_data import ClipSynthesizer
from mesh_head.protocols import describe_protocols, find_protocols
from mesh_head.supervision import SupervisedBody
from mesh_head.weights import find_weights, load_model_for


def main(config: dict[str, Any]) -> None:
    display, device, out = ProgressDisplay(), choose_device(config["device"]), report_path(str(config["out"]))
    protocols, split = find_protocols(config["protocol"]), config["data"].pop("split")
    data, weights = instantiate(config["data"], _convert_="all"), find_weights(config["weights"])
    recordings = benchmark.recorded_files(data, split)
    load_body = partial(instantiate, config["body_model"]["body"])
    body, regressor = load_body().to(device), instantiate(config["body_model"]["regressor"]).to(device)
    model, clip, remark = load_model_for(weights, body, mirror_test=config["mirror_test"])
    display.say(remark)
    window_frames, fps = int(clip["num_frames"]), float(clip["fps"]) if config["match_frame_rate"] else None

    if recordings is not None:
        if config["worst_frames"]:
            require_renderer(config["renderer"])
        recover = benchmark.ModelRecovery(model=model, window_frames=window_frames, fps=fps)
        evaluator = benchmark.BenchmarkEvaluator(recover, load_body, regressor, protocols, device)
        with display.task(f"Evaluating {data.dataset} {split}", len(recordings)) as advance:
            result = benchmark.evaluate_benchmark(evaluator, recordings, config["workers"], advance)
        facts = {"dataset": data.dataset, "split": split, "weights": str(weights), "remark": remark}
        drawing = {"num_worst_frames": config["worst_frames"], "renderer": config["renderer"]}
        report_recordings(display, out, result, evaluator, facts | {"body_model": body.model_name}, **drawing)
        return

    protocols = [protocol.on_motion() for protocol in protocols]
    sequences, evaluation = data.read(split), instantiate(config["evaluation"])
    supervised = SupervisedBody(body=body, regressor=regressor, num_vertices=1)
    cameras, noise = instantiate(config["cameras"]), instantiate(config["noise"])
    results = {}
    for name, evaluated in (("this model", model), ("mean pose", model.head.mean_pose_model())):
        with display.task(f"Evaluating {name}", len(evaluation.stretches(sequences))) as advance:
            results[name] = evaluate_motion(
                evaluated.to(device).eval(),
                sequences,
                evaluation=evaluation,
                synthesizer=ClipSynthesizer(body=supervised, cameras=cameras, noise=noise).to(device),
                body=body,
                regressor=regressor,
                protocols=protocols,
                window_frames=window_frames,
                device=device,
                model_fps=fps,
                on_stretch_done=advance,
            )
    report_motion(display, out, results, protocols, title=f"{split} motion")


if __name__ == "__main__":
    run_command(main, "eval_mesh", f"{__doc__}\nProtocols:\n{describe_protocols()}")
