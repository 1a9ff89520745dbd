"""Preparations as jobs: one per source file, in several processes, each done once and kept.

What is done stands in `<out>/preparation.json`. A job counts as done while the files it read have the same sizes
and times and everything it wrote is still there, so that a preparation goes on where it was stopped. The record
also says whether the preparation came to its end; until then nobody may take the folder for a whole set.
"""

import json
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from core.atomic_write import written_whole
from core.datasets.preparation import OnProgress, PreparationReport

LOG_NAME = "preparation.json"
_SECONDS_BETWEEN_SAVES = 2.0
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class JobResult:
    """What one job left behind.

    Attributes:
        outputs: Files below the output folder, as relative paths.
        counts: To be added up over all jobs.
        warnings: One sentence each.
    """

    outputs: list[str]
    counts: dict[str, int]
    warnings: list[str] = field(default_factory=list)


class JobLog:
    """The jobs that are done in an output folder.

    Raises:
        ValueError: The folder holds the outcome of a preparation with other settings.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out = out
        self.settings = json.loads(json.dumps(settings))
        self._done: dict[str, dict[str, Any]] = {}
        self._is_finished = False
        self._saved_s = float("-inf")
        if not self._path.is_file():
            return
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            settings_before, self._done = content["settings"], dict(content["done"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self._path} is damaged ({error}); delete the folder {out}.") from error
        if self._done and settings_before != self.settings:
            raise ValueError(
                f"{out} holds what was prepared with {settings_before}, not with {self.settings}; "
                "name another folder for `out`, or delete this one."
            )

    @property
    def _path(self) -> Path:
        return self.out / LOG_NAME

    def result(self, name: str, read: Sequence[Path]) -> JobResult | None:
        """What the job left, if it is done and still stands; else what is left of it is removed.

        Args:
            read: the files that its outcome depends on.
        """
        entry = self._done.get(name)
        if entry is None:
            return None
        result = JobResult(**entry["result"])
        outputs = [self.out / output for output in result.outputs]
        if entry["source"] == _signature(read) and all(output.is_file() for output in outputs):
            return result
        for output in outputs:
            if self.out.resolve() in output.resolve().parents:
                output.unlink(missing_ok=True)
        del self._done[name]
        return None

    def outputs_of_others(self, names: Collection[str]) -> list[str]:
        """What jobs of other names left in the folder, as relative paths."""
        others = [entry["result"]["outputs"] for name, entry in self._done.items() if name not in names]
        return sorted(output for outputs in others for output in outputs if (self.out / output).is_file())

    def record(self, name: str, read: Sequence[Path], result: JobResult) -> None:
        self._done[name] = {"source": _signature(read), "result": asdict(result)}
        if time.monotonic() - self._saved_s > _SECONDS_BETWEEN_SAVES:
            self.save()

    @contextmanager
    def unfinished(self) -> Iterator[None]:
        """The set counts as unfinished in this block, and as finished after it, unless an error ends it.

        Where nothing was done the record goes: mistaken settings leave no trace.
        """
        is_new = not self.out.exists()
        self._is_finished = False
        self.save()
        try:
            yield
            self._is_finished = True
        finally:
            if self._done:
                self.save()
            else:
                self._path.unlink(missing_ok=True)
                with suppress(OSError):  # half-done work may lie in it
                    if is_new:
                        self.out.rmdir()

    def save(self) -> None:
        record = {"settings": self.settings, "finished": self._is_finished, "done": self._done}
        with written_whole(self._path) as file:
            file.write(json.dumps(record, indent=1).encode())
        self._saved_s = time.monotonic()


def finished_outputs(out: Path) -> list[str]:
    """What a preparation left in a folder, as relative paths.

    Raises:
        ValueError: It was not finished, as far as its record tells.
    """
    path = out / LOG_NAME
    if not path.is_file():
        raise ValueError(
            f"{out} has no {LOG_NAME}, so nothing tells whether the set in it is whole; run tools/prepare_data.py "
            "again."
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        outputs = [str(output) for entry in record["done"].values() for output in entry["result"]["outputs"]]
        is_finished = record.get("finished") is True
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); delete {out} and prepare the set again.") from error
    if not is_finished:
        raise ValueError(
            f"{path} does not say that the preparation was finished; run tools/prepare_data.py again, which keeps "
            "what is done."
        )
    return outputs


def run_jobs(
    work: Callable[[str, Path, Path], JobResult],
    sources: Mapping[str, Path],
    out: Path,
    *,
    settings: Mapping[str, Any],
    workers: int,
    on_progress: OnProgress,
    also_read: Mapping[str, Sequence[Path]] | None = None,
    leave_out_unreadable: bool = False,
) -> PreparationReport:
    """Does the jobs that are not done yet, and warns of what other jobs have left in the folder.

    Args:
        work: (name, source, out) → what it wrote below `out`; importable by name, as other processes run it.
        sources: The file of every job, by the job's name.
        settings: All else that the outcome depends on.
        workers: Processes; 1 works in this one.
        on_progress: (done, all), called after every job.
        also_read: Files beside its source that the outcome of a job depends on, by the job's name.
        leave_out_unreadable: A job that ends in a ValueError becomes a warning.

    Raises:
        ValueError: `out` was prepared with other settings; or some jobs failed, after all others were done.
    """
    log = JobLog(out, settings)
    read = {name: [source, *(also_read or {}).get(name, ())] for name, source in sources.items()}
    results = {name: log.result(name, files) for name, files in read.items()}
    waiting = [name for name, result in results.items() if result is None]
    failures: dict[str, ValueError] = {}
    on_progress(len(sources) - len(waiting), len(sources))

    def finish(name: str, outcome: Callable[[], JobResult]) -> None:
        try:
            results[name] = result = outcome()
            log.record(name, read[name], result)
        except ValueError as error:
            failures[name] = error
        done = sum(result is not None for result in results.values())
        on_progress(done + len(failures), len(sources))

    with log.unfinished():
        run_each(work, {name: (name, sources[name], out) for name in waiting}, workers, finish)
        if failures and not leave_out_unreadable:
            first = str(next(iter(failures.values())))
            others = (
                f" ({len(failures) - 1} more of {len(sources)} files failed.)" if len(failures) > 1 else ""
            )
            raise ValueError(
                f"{first}{others} What could be prepared is kept; start again once this is mended."
            )
    finished = [result for result in results.values() if result is not None]
    counts: Counter[str] = Counter()
    for result in finished:
        counts.update(result.counts)
    warnings = [warning for result in finished for warning in result.warnings]
    of_others = log.outputs_of_others(sources)
    if of_others:
        more = f" and {len(of_others) - 1} more files" if len(of_others) > 1 else ""
        warnings.append(
            f"{out} also holds {of_others[0]}{more} of an earlier preparation, whose sources were not given this "
            "time; they will be read with the rest, so delete them if they should not."
        )
    return PreparationReport(dict(counts), warnings + [f"Left out: {error}" for error in failures.values()])


def run_each(
    work: Callable[..., _Result],
    jobs: Mapping[str, tuple[Any, ...]],
    workers: int,
    finish: Callable[[str, Callable[[], _Result]], None],
) -> None:
    """Does jobs, in several processes if there are several of both.

    Args:
        work: Importable by name, as other processes run it.
        jobs: Its arguments, by the job's name.
        finish: Called in this process as each job ends: its name, and what gives its result or raises its error.

    Raises:
        ValueError: A process was ended from outside.
    """
    if workers <= 1 or len(jobs) <= 1:
        for name, arguments in jobs.items():
            finish(name, partial(work, *arguments))
        return
    # Spawned, not forked: the same on every system, and safe beside the threads of torch and of a progress display.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context)
    try:
        futures = {pool.submit(work, *arguments): name for name, arguments in jobs.items()}
        for future in as_completed(futures):
            finish(futures[future], future.result)
    except BrokenProcessPool as error:
        raise ValueError(
            "A process of the preparation was ended from outside, most likely for want of memory; start again "
            "with fewer workers (what is done is kept)."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _signature(paths: Sequence[Path]) -> list[int]:
    statuses = [path.stat() for path in paths]
    return [number for status in statuses for number in (status.st_size, status.st_mtime_ns)]
