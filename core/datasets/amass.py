"""AMASS as its owners distribute it, to motion files of SMPL-24 by split."""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from core.datasets.preparation import OnProgress, PreparationReport
from core.datasets.resumable_jobs import LOG_NAME, JobResult, run_jobs
from core.folders import files_below
from core.motion.sequence import find_motion_files, read_motion_npz, resample, write_motion_npz
from core.settings import require_number

# The usual assignment (github.com/nghorbani/amass), with all that came later for training. Folders are named
# after the SMPL+H release; the SMPL-X release calls some of them otherwise.
SPLITS: dict[str, tuple[str, ...]] = {
    "train": (
        *(
            "ACCAD",
            "BMLhandball",
            "BMLmovi",
            "BioMotionLab_NTroje",
            "CMU",
            "CNRS",
            "DFaust_67",
            "DanceDB",
            "EKUT",
        ),
        *(
            "Eyes_Japan_Dataset",
            "GRAB",
            "HUMAN4D",
            "KIT",
            "MPI_Limits",
            "SOMA",
            "TCD_handMocap",
            "TotalCapture",
        ),
        "WEIZMANN",
    ),
    "val": ("HumanEva", "MPI_HDM05", "MPI_mosh", "SFU"),
    "test": ("SSM_synced", "Transitions_mocap"),
}
_OTHER_NAMES = {
    "BMLrub": "BioMotionLab_NTroje",
    "DFaust": "DFaust_67",
    "HDM05": "MPI_HDM05",
    "MoSh": "MPI_mosh",
    "PosePrior": "MPI_Limits",
    "SSM": "SSM_synced",
    "TCDHands": "TCD_handMocap",
    "Transitions": "Transitions_mocap",
}

_LARGEST_FPS = 1000


def prepare_amass(
    root: Path,
    out: Path,
    *,
    on_progress: OnProgress,
    workers: int,
    fps: Any = 30.0,
    splits: Any = None,
) -> PreparationReport:
    """Brings every motion below `root` to SMPL-24 and one frame rate: `<out>/<split>/<set>_<subject>_<name>.npz`.

    `core.motion.sequence.read_motion_npz` reads the variants (SMPL, SMPL+H, SMPL-X) and checks them; a file
    that it refuses is left out with a warning.

    Args:
        root: The folder of the unpacked archives, `<root>/<set>/…/<subject>/<name>.npz`.
        fps: Rate to resample to, a number; 0 keeps every motion's own.
        splits: Lists of the folders of the sets that make up each split, by its name, and no others; None:
            `SPLITS`, where folders that it does not know count as training data, and what is in folders train,
            val and test already stays there. A user sets both, so they are checked here.

    Raises:
        ValueError: There is no motion, or none in any split; or an option is none.
    """
    require_number("fps", fps, least=0, most=_LARGEST_FPS)
    split_of = _split_of(SPLITS if splits is None else splits)
    sources, unknown = {}, set()
    for path in _motion_files(root, out):
        folders = [root.name, *path.relative_to(root).parts[:-1]]
        split = next((split_of[name] for name in map(_set_name, folders) if name in split_of), None)
        if splits is None and folders[1:] and folders[1] in SPLITS:
            split = folders.pop(1)  # somebody has split them already
        if split is None:
            unknown.add(folders[min(1, len(folders) - 1)])
            if splits is not None:
                continue
            split = "train"
        name = f"{split}/{'_'.join((*folders[1:], path.stem))}"
        while name in sources:  # a/b_c and a_b/c
            name += "_"
        sources[name] = path
    if not sources:
        raise ValueError(
            f"{root} holds motion in the folders {', '.join(sorted(unknown))}, none of which is in a split; "
            f"the splits name {', '.join(sorted(split_of))}."
        )
    report = run_jobs(
        partial(_prepare_motion, fps=fps),
        sources,
        out,
        settings={"dataset": "amass", "fps": fps, "splits": splits},
        workers=workers,
        on_progress=on_progress,
        leave_out_unreadable=True,
    )
    if not report.counts:
        raise ValueError(f"None of the {len(sources)} files below {root} could be read. {report.warnings[0]}")
    fate = "counted as training data" if splits is None else "left out"
    warnings = [
        f"The folder {name} is no set that the splits name; it was {fate}." for name in sorted(unknown)
    ]
    return PreparationReport(dict(sorted(report.counts.items())), warnings + report.warnings)


def _split_of(splits: Any) -> dict[str, str]:
    """The split of each set, by the set's name."""
    are_tables = isinstance(splits, Mapping) and all(
        # Splits become folders, so a name must be nothing but a name.
        isinstance(split, str) and re.fullmatch(r"\w[\w.-]*", split) and isinstance(names, list | tuple)
        for split, names in splits.items()
    )
    pairs = [(split, name) for split, names in splits.items() for name in names] if are_tables else []
    if not pairs or not all(isinstance(name, str) for _, name in pairs):
        raise ValueError(
            f"splits={splits} names no lists of folders by split; give for example "
            '"splits={train:[CMU,KIT],val:[SFU],test:[SSM]}".'
        )
    split_of: dict[str, str] = {}
    for split, name in pairs:
        if split_of.setdefault(_set_name(name), split) != split:
            raise ValueError(f"splits={splits} puts {name} into two splits; a set belongs to one.")
    return split_of


def _motion_files(root: Path, out: Path) -> list[Path]:
    """All below `root` but what was prepared from it."""
    prepared = {out.resolve(), *(log.parent.resolve() for log in files_below(root, LOG_NAME))}
    files = [path for path in find_motion_files(root, None) if prepared.isdisjoint(path.resolve().parents)]
    if not files:
        raise ValueError(f"{root} holds no motion but what was prepared before; name the owners' files.")
    return files


def _set_name(folder: str) -> str:
    return _OTHER_NAMES.get(folder, folder)


def _prepare_motion(name: str, source: Path, out: Path, *, fps: float | int) -> JobResult:
    sequence = read_motion_npz(source)
    duration_s = sequence.duration_s
    if fps != 0:
        sequence = resample(sequence, fps)
    split, stem = name.split("/")
    output = f"{name}.npz"
    write_motion_npz(out / output, replace(sequence, label=sequence.label or stem))
    return JobResult(
        [output],
        {
            f"{split} motions": 1,
            f"{split} frames": sequence.num_frames,
            f"{split} seconds": round(duration_s),
        },
    )
