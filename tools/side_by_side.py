"""Train models side by side: the same lifting task, motion, cameras, noise, seeds and budget for each.

    python tools/side_by_side.py data.root=FOLDER peers.motionagformer=FOLDER peers.motionbert=FOLDER \\
        peers.stcformer=FOLDER                                  ours, the residual MLP, the predecessors
    python tools/side_by_side.py rows=ablation_blocks data.root=FOLDER     ours with one choice changed in each row
    python tools/side_by_side.py data.root=FOLDER schedule.max_seconds=null schedule.max_steps=20000
    python tools/side_by_side.py data.root=FOLDER only=[ours,residual_mlp] backbone=ssr_stf_xs
    python tools/side_by_side.py data=prepared_lifting clips=prepared data.root=FOLDER validation.split=test
    python tools/side_by_side.py data.root=FOLDER "+rows.large=['backbone=ssr_stf_b']"

Predecessors are imported from the folders into which you cloned their repositories. Whatever configures
tools/train_pose.py may be given, but experiments and the curriculum; it holds for every row, and each row is a list
of such overrides (configs/rows/): clips and their number differ where a row says so, as the residual MLP's does. An
hour for each row and seed if nothing else is said. Finished runs are kept in `out`, interrupted ones go on:
give the same command again. Leaves side_by_side.json and learning.png (each row's errors over time) there, to which
rows that are run later (only=[…]) are added, and ROW/seed_N/model.safetensors of rows of our own.
"""

import sys
from pathlib import Path
from typing import Any

from command_line import run_command
from command_names import with_quoted_names

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ is not installed
from benchmarks.comparison.harness import compare, with_rows_of
from benchmarks.comparison.report import print_report
from core.charts import save_figure
from core.folders import only_writer
from core.learning_curves import comparison_figure
from core.run_folder import write_json


def main(config: dict[str, Any]) -> None:
    overrides = [argument for argument in sys.argv[1:] if argument != "--traceback"]
    out = Path(config["out"]) / "side_by_side.json"
    over = "step" if config["schedule"]["max_seconds"] is None else "seconds"
    with only_writer(out.parent):
        report = with_rows_of(out, compare(config, with_quoted_names(overrides)))
        write_json(out, report)
        histories = {name: [run["history"] for run in row["runs"]] for name, row in report["rows"].items()}
        save_figure(comparison_figure(histories, over=over), out.with_name("learning.png"))
    print_report(report)
    print(f"The same numbers, and those of each seed: {out}; how they learned: learning.png beside it")


if __name__ == "__main__":
    run_command(main, "side_by_side", __doc__ or "")
