"""What an evaluation leaves behind: tables for people, JSON and CSV for programs, a picture of the worst frames."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from body_models.parameters import BodyParameters
from body_models.render.pictures import save_png
from body_models.render.sheets import comparison_sheet
from body_models.smpl import SmplBody
from core.datasets.mesh_sequences import Gender
from core.progress import ProgressDisplay
from core.run_folder import write_json, write_text
from core.skeleton import H36M_17
from mesh_head.benchmark_evaluation import BenchmarkEvaluator, BenchmarkResult, WorstFrame
from mesh_head.evaluation import EvaluationResult
from mesh_head.metrics import MeshErrors
from mesh_head.protocols import Protocol


def report_path(out: str) -> Path:
    """`out` as the path of the JSON.

    Raises:
        ValueError: it has the name that the CSV beside the JSON takes.
    """
    path = Path(out)
    if path.suffix.lower() == ".csv":
        raise ValueError(
            f"out={out} is to be JSON, and a .csv is written beside it; say out={path.with_suffix('.json')}."
        )
    return path


def report_motion(
    display: ProgressDisplay,
    out: Path,
    results: Mapping[str, EvaluationResult],
    protocols: Sequence[Protocol],
    *,
    title: str,
) -> None:
    """Prints a table per protocol and writes `out` (JSON): the first result, with the second as baseline."""
    result, mean_pose = results.values()
    reports = [result.report(protocol, mean_pose) for protocol in protocols]
    write_json(out, reports[0] if len(reports) == 1 else {"results": reports})
    for protocol in protocols:
        rows = {name: result.total[protocol.name].as_dict() for name, result in results.items()}
        _show(display, title, protocol, rows)
    display.console.print(f"Per sequence and in total: {out}", soft_wrap=True)


def report_recordings(
    display: ProgressDisplay,
    out: Path,
    result: BenchmarkResult,
    evaluator: BenchmarkEvaluator,
    facts: Mapping[str, Any],
    *,
    num_worst_frames: int,
    renderer: str,
) -> list[Path]:
    """Prints a table per protocol, writes `out` (JSON), a CSV beside it and, unless of no frames, a picture.

    Args:
        facts: what the JSON says first; `dataset` and `split` are in the tables' titles.

    Returns:
        The files' paths.
    """
    reports = [result.errors.report(protocol) for protocol in evaluator.protocols]
    write_json(out, {**facts, "results": reports})
    written = [out, out.with_suffix(".csv")]
    write_text(written[1], error_table(result.errors))
    for protocol in evaluator.protocols:
        title = f"{facts['dataset']} {facts['split']}"
        _show(display, title, protocol, result.errors.rows(protocol.name))
    if num_worst_frames:
        written.append(out.with_name(f"{out.stem}_worst.png"))
        with display.task("Drawing the worst frames"):
            sheet = worst_frames_sheet(evaluator, result.worst[:num_worst_frames], renderer=renderer)
        save_png(sheet, written[2])
    display.console.print(f"Left: {', '.join(map(str, written))}", soft_wrap=True)
    return written


def error_table(result: EvaluationResult) -> str:
    """CSV with a row per protocol and sequence, and one in total; what is not defined is empty."""
    text = io.StringIO()
    names = [field.name for field in fields(MeshErrors)]
    table = csv.DictWriter(text, ["protocol", "sequence", *names], lineterminator="\n")
    table.writeheader()
    for protocol in result.total:
        for sequence, errors in result.rows(protocol).items():
            table.writerow({"protocol": protocol, "sequence": sequence, **errors})
    return text.getvalue()


def worst_frames_sheet(
    evaluator: BenchmarkEvaluator, worst: Sequence[WorstFrame], *, renderer: str
) -> Image.Image:
    """A row per frame: what the model saw, its body, the true one."""
    measure = "MPJPE" if evaluator.protocols[0].vertex_root is None else "MPVE"

    def vertices_m(gender: Gender, parameters: BodyParameters) -> Tensor:
        body: SmplBody = evaluator.body(gender).body
        posed: Tensor = body(parameters.to(evaluator.device)).vertices_m
        return posed.cpu()

    with torch.no_grad():
        return comparison_sheet(
            torch.stack([frame.keypoints_px for frame in worst]),
            torch.stack([frame.confidence for frame in worst]),
            H36M_17,
            torch.cat([vertices_m("neutral", frame.predicted) for frame in worst]),
            torch.cat([vertices_m(frame.true_gender, frame.true) for frame in worst]),
            evaluator.body("neutral").body.faces.cpu(),
            row_titles=[f"{frame.title}\n{measure} {frame.error_mm:.0f} mm" for frame in worst],
            title=f"The worst frame of the worst sequences, protocol {evaluator.protocols[0].name}",
            renderer=renderer,
        )


def _show(
    display: ProgressDisplay, title: str, protocol: Protocol, rows: Mapping[str, Mapping[str, float | int]]
) -> None:
    display.table(f"{title}, protocol {protocol.name}", rows)
    display.console.print(protocol.describe(), style="dim")
