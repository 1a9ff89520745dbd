"""Measures the project against a reference, side by side in one process, and prints a table.

    python tools/bench.py body                              a table; the subjects are listed below
    python tools/bench.py body out=bench.json threads=2     writes the rows too; CPU threads for both sides

On a busy machine set OMP_WAIT_POLICY=PASSIVE: threads that spin while waiting slow both sides manyfold.
Every subject is a module of tools/benchmarks with `run(threads) -> list[BenchRow]`.
"""

import importlib
import sys
from pathlib import Path

import torch
from benchmarks.timing import print_rows, write_rows

SUBJECTS = sorted(path.stem for path in (Path(__file__).parent / "benchmarks").glob("[!_]*.py"))
SUBJECTS.remove("timing")  # what the subjects share


def main(arguments: list[str]) -> None:
    subject, out, threads = _parse(arguments)
    torch.set_num_threads(threads)
    rows = importlib.import_module(f"benchmarks.{subject}").run(threads)
    print_rows(subject, rows)
    if out is not None:
        write_rows(out, subject, rows)


def _parse(arguments: list[str]) -> tuple[str, Path | None, int]:
    there_are = f"There are: {', '.join(SUBJECTS)}."
    if not arguments:
        raise ValueError(f"Say what to measure, as in `python tools/bench.py {SUBJECTS[0]}`. {there_are}")
    subject, *options = arguments
    if subject not in SUBJECTS:
        raise ValueError(f"There is nothing called '{subject}' to measure. {there_are}")
    values = {"out": "", "threads": "2"}
    for option in options:
        key, has_value, value = option.partition("=")
        if key not in values or not has_value:
            raise ValueError(f"There is no option '{option}': give out=<file.json> or threads=<number>.")
        values[key] = value
    if not values["threads"].isdecimal() or int(values["threads"]) == 0:
        raise ValueError(f"threads={values['threads']} is not a positive number of CPU threads.")
    return subject, Path(values["out"]) if values["out"] else None, int(values["threads"])


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{__doc__}\nSubjects: {', '.join(SUBJECTS)}")
        sys.exit()
    try:
        main(sys.argv[1:])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
