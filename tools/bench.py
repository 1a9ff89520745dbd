"""Measures the project against a reference, side by side in one process, and prints a table.

    python tools/bench.py body                              a table; the subjects are listed below
    python tools/bench.py body out=bench.json threads=2     writes the rows too; CPU threads for both sides
    python tools/bench.py peers motionagformer=FOLDER       what a subject takes beside that: peers --help

On a busy machine set OMP_WAIT_POLICY=PASSIVE: threads that spin while waiting slow both sides manyfold.
Every subject is a module of benchmarks/ with `run(threads, …) -> list[BenchRow]`; OPTIONS name what `…` is.
"""

import importlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ is not installed
from benchmarks.timing import print_rows, write_rows
from core.process_settings import keep_freed_memory
from core.settings import require_threads

SUBJECTS = sorted(path.stem for path in (Path(__file__).resolve().parents[1] / "benchmarks").glob("[!_]*.py"))
SUBJECTS.remove("timing")  # what the subjects share


def main(arguments: list[str]) -> None:
    subject, out, threads, options = _parse(arguments)
    if out is not None:  # what cannot be written is said before anything is measured
        out.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    keep_freed_memory()  # as all commands do
    rows = importlib.import_module(f"benchmarks.{subject}").run(threads, **options)
    print_rows(subject, rows)
    if out is not None:
        write_rows(out, subject, rows)


def _parse(arguments: list[str]) -> tuple[str, Path | None, int, dict[str, str]]:
    there_are = f"There are: {', '.join(SUBJECTS)}."
    if not arguments:
        raise ValueError(f"Say what to measure, as in `python tools/bench.py {SUBJECTS[0]}`. {there_are}")
    subject, *options = arguments
    if subject not in SUBJECTS:
        raise ValueError(f"There is nothing called '{subject}' to measure. {there_are}")
    own = getattr(importlib.import_module(f"benchmarks.{subject}"), "OPTIONS", ())
    values = {"out": "", "threads": "2"} | dict.fromkeys(own, "")
    for option in options:
        key, has_value, value = option.partition("=")
        if key not in values or not has_value:
            there_are_also = "".join(f", {name}=…" for name in own)
            raise ValueError(
                f"There is no option '{option}': give out=<file.json> or threads=<number>{there_are_also}."
            )
        values[key] = value
    threads = int(values["threads"]) if values["threads"].isdecimal() else values["threads"]
    require_threads("threads", threads)
    out = Path(values["out"]) if values["out"] else None
    if out is not None and out.is_dir():
        raise ValueError(f"out={out} is a folder; name a file for the measurements.")
    return subject, out, int(values["threads"]), {name: values[name] for name in own}


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(f"{__doc__}\nSubjects: {', '.join(SUBJECTS)}")
        for name in set(SUBJECTS) & set(sys.argv[1:]):
            module = importlib.import_module(f"benchmarks.{name}")
            print(
                f"\n{module.__doc__}\nOptions: {', '.join(('out', 'threads', *getattr(module, 'OPTIONS', ())))}"
            )
        sys.exit()
    try:
        main(sys.argv[1:])
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("error: Interrupted.", file=sys.stderr)
        sys.exit(2)
