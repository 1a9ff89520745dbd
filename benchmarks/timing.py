"""What all benchmark subjects share: side-by-side timing, and rows as a table and as JSON."""

import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from core.atomic_write import written_whole


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One case: how long we and the reference take for the same thing, and how much the results differ.

    Attributes:
        max_abs_diff: None where both are of different designs, so that a difference would say nothing.
    """

    case: str
    ours_s: float
    reference: str
    reference_s: float
    max_abs_diff: float | None
    sizes: dict[str, int]
    dtype: str
    threads: int
    device: str = "cpu"

    @property
    def ratio(self) -> float:
        """How many times faster we are."""
        return self.reference_s / self.ours_s


def time_side_by_side(
    ours: Callable[[], object],
    reference: Callable[[], object],
    *,
    seconds: float = 3.0,
    min_rounds: int = 11,
    warm_up_rounds: int = 3,
    clock_s: Callable[[], float] = time.perf_counter,
) -> tuple[float, float]:
    """Median seconds of one call of each.

    The two take turns, and the one that goes first changes every round, so that whatever else the machine does
    slows both alike.

    Args:
        seconds, min_rounds: both are reached.
        clock_s: what is measured; `time.process_time` adds up the threads of this process, and stands still while
            others run.
    """
    for _ in range(warm_up_rounds):
        ours()
        reference()
    elapsed_s: dict[Callable[[], object], list[float]] = {ours: [], reference: []}
    started_s = time.perf_counter()
    order = [ours, reference]
    while len(elapsed_s[ours]) < min_rounds or time.perf_counter() - started_s < seconds:
        for function in order:
            before_s = clock_s()
            function()
            elapsed_s[function].append(clock_s() - before_s)
        order.reverse()
    return median(elapsed_s[ours]), median(elapsed_s[reference])


def print_rows(subject: str, rows: list[BenchRow]) -> None:
    threads = {row.threads for row in rows}
    table = Table("case", "ours", "reference", "its time", "times faster", "largest difference")
    table.title = f"{subject}, {'/'.join(map(str, threads))} CPU threads, medians"
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(
            row.case,
            f"{row.ours_s * 1e3:.2f} ms",
            row.reference,
            f"{row.reference_s * 1e3:.2f} ms",
            f"{row.ratio:.2f}",
            "–" if row.max_abs_diff is None else f"{row.max_abs_diff:.1e}",
        )
    # A pipe has no width; 120 columns keep every row on one line there.
    Console(width=None if Console().is_terminal else 120).print(table)


def write_rows(path: Path, subject: str, rows: list[BenchRow]) -> None:
    report = {
        "subject": subject,
        "rows": [{**asdict(row), "ratio": row.ratio} for row in rows],
        "versions": {"python": platform.python_version()} | _package_versions(),
        "machine": {"system": platform.platform(), "processor": _processor(), "num_cpus": os.cpu_count()},
    }
    with written_whole(path) as file:
        file.write((json.dumps(report, indent=2) + "\n").encode())


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in ("ssr-stf-mesh", "torch", "numpy", "smplx", "trimesh", "pytorch3d", "pyrender"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _processor() -> str:
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        for line in cpu_info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
