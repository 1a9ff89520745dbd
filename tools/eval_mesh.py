"""Evaluate mesh weights: MPJPE, PA-MPJPE, MPVE, acceleration error, PCK, AUC, each under a declared protocol.

    python tools/eval_mesh.py                                                     shipped weights, built-in motion
    python tools/eval_mesh.py weights=outputs/demo/model.safetensors data=motion data.root=FOLDER data.split=test
    python tools/eval_mesh.py data=3dpw data.root=PREPARED protocol=[wham,motionbert] out=result.json
    python tools/eval_mesh.py data=3dpw data.root=PREPARED body_model=smpl body_model.path=FOLDER workers=8

Prints a table per protocol and writes the same numbers, in total and per sequence, as JSON; for recorded people
(data=3dpw) as CSV too, with a picture of the worst frames.
"""

from functools import partial
from pathlib import Path
from typing import Any

from command_line import run_command
from hydra.utils import instantiate

from body_models.render import require_renderer
from core.progress import ProgressDisplay
from core.run_folder import choose_device, write_json
from mesh_head import benchmark_evaluation as benchmark
from mesh_head.evaluation import evaluate_motion
from mesh_head.motion_data import ClipSynthesizer, MotionSource
from mesh_head.protocols import Protocol, describe_protocols, find_protocols
from mesh_head.supervision import SupervisedBody
from mesh_head.weights import body_model_name, find_weights, load_model_for


def main(config: dict[str, Any]) -> None:
    protocols, split = find_protocols(config["protocol"]), config["data"].pop("split")
    data = instantiate(config["data"], _convert_="all")
    if isinstance(data, benchmark.PreparedMeshData):
        evaluate_recordings(config, protocols, data, split)
    else:
        evaluate_virtual_recordings(config, protocols, data, split)


def evaluate_recordings(
    config: dict[str, Any], protocols: list[Protocol], data: benchmark.PreparedMeshData, split: str
) -> None:
    """Recorded people, seen by a real camera and a real detector."""
    display, device = ProgressDisplay(), choose_device(config["device"])
    files, weights = data.files(split), find_weights(config["weights"])
    if config["worst_frames"]:
        require_renderer(config["renderer"])
    load_body = partial(instantiate, config["body_model"]["body"])
    body = load_body()
    model, clip, remark = load_model_for(weights, body)
    if remark is not None:
        display.console.print(remark, soft_wrap=True)
    evaluator = benchmark.BenchmarkEvaluator(
        recover=benchmark.ModelRecovery(model=model, window_frames=int(clip["num_frames"])),
        load_body=load_body,
        regressor=instantiate(config["body_model"]["regressor"]),
        protocols=protocols,
        device=device,
    )
    with display.task(f"Evaluating {data.dataset} {split}", len(files)) as advance:
        result = benchmark.evaluate_benchmark(
            evaluator, files, workers=config["workers"], on_sequence_done=advance
        )
    for protocol in protocols:
        display.table(f"{data.dataset} {split}, protocol {protocol.name}", result.errors.rows(protocol.name))
        display.console.print(protocol.describe(), style="dim")
    facts = {"dataset": data.dataset, "split": split, "weights": str(weights)}
    written = benchmark.write_benchmark_files(
        Path(config["out"]),
        result,
        evaluator,
        num_worst_frames=config["worst_frames"],
        renderer=config["renderer"],
        facts=facts | {"body_model": body_model_name(body), "remark": remark},
    )
    display.console.print(f"Left: {', '.join(map(str, written))}", soft_wrap=True)


def evaluate_virtual_recordings(
    config: dict[str, Any], protocols: list[Protocol], data: MotionSource, split: str
) -> None:
    """Motion, seen by virtual cameras and a virtual detector; the mean pose beside the model."""
    display, device = ProgressDisplay(), choose_device(config["device"])
    with display.task("Reading body and motion"):
        body = instantiate(config["body_model"]["body"]).to(device)
        regressor = instantiate(config["body_model"]["regressor"]).to(device)
        model, clip, remark = load_model_for(find_weights(config["weights"]), body)
        sequences = data.read(split)
    if remark is not None:
        display.console.print(remark, soft_wrap=True)
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
    run_command(main, "eval_mesh", f"{__doc__}\nProtocols:\n{describe_protocols()}")
