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
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from core.atomic_write import remove_abandoned, written_whole
from core.datasets.preparation import OnProgress, PreparationReport

LOG_NAME = "preparation.json"
_SECONDS_BETWEEN_SAVES = 2.0
_Result = TypeVar("_Result")
# Sizes and times of the files that a job's outcome depends on.
Signature = list[int]


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


class EndedFromOutsideError(ValueError):
    """A process that did jobs was killed: what it had begun may lie there in part, or whole and unrecorded."""


@dataclass(frozen=True)
class _DoneJob:
    """A job that is done, and the signature of what it read."""

    source: Signature
    result: JobResult


@dataclass(frozen=True)
class _Record:
    """What a `preparation.json` says."""

    settings: Any
    is_finished: bool
    done: dict[str, _DoneJob]


class JobLog:
    """The jobs that are done in an output folder.

    Raises:
        ValueError: The folder holds the outcome of a preparation with other settings, or its record is damaged or
            another program's.
    """

    def __init__(self, out: Path, settings: Mapping[str, Any]) -> None:
        self.out = out
        self.settings = json.loads(json.dumps(settings))
        self._done: dict[str, _DoneJob] = {}
        self._is_finished = False
        self._saved_s = float("-inf")
        if not self._path.is_file():
            return
        before = _read_record(self._path)
        self._done = before.done
        if self._done and before.settings != self.settings:
            raise ValueError(
                f"{out} holds what was prepared with {before.settings}, not with {self.settings}; "
                "name another folder for `out`, or delete this one."
            )

    @property
    def _path(self) -> Path:
        return self.out / LOG_NAME

    def result(self, name: str, source: Signature) -> JobResult | None:
        """What the job left, if it is done and still stands; else what is left of it is removed.

        Args:
            source: of the files that its outcome depends on, as they are now.
        """
        job = self._done.get(name)
        if job is None:
            return None
        outputs = [self.out / output for output in job.result.outputs]
        if job.source == source and all(output.is_file() for output in outputs):
            return job.result
        for output in outputs:
            if self.out.resolve() in output.resolve().parents:
                output.unlink(missing_ok=True)
        del self._done[name]
        return None

    def outputs_of_others(self, names: Collection[str]) -> list[str]:
        """What jobs of other names left in the folder, as relative paths; those that left nothing are forgotten."""
        others = {
            name: [output for output in job.result.outputs if (self.out / output).is_file()]
            for name, job in self._done.items()
            if name not in names
        }
        for name in [name for name, outputs in others.items() if not outputs]:
            del self._done[name]
        return sorted(output for outputs in others.values() for output in outputs)

    def record(self, name: str, source: Signature, result: JobResult) -> None:
        """Notes a job as done.

        Args:
            source: of the files that it read, taken before: what changes meanwhile is another source.
        """
        self._done[name] = _DoneJob(source, result)
        if time.monotonic() - self._saved_s > _SECONDS_BETWEEN_SAVES:
            self.save()

    @contextmanager
    def unfinished(self) -> Iterator[None]:
        """The set counts as unfinished in this block, and as finished after it, unless an error ends it.

        Where nothing was done the record goes: mistaken settings leave no trace. After an interruption it stays, as
        jobs that it does not know may have left files.
        """
        is_new = not self.out.exists()
        self._is_finished = False
        remove_abandoned(self.out)
        self.save()
        may_have_left_files = True
        try:
            yield
            self._is_finished = True
            may_have_left_files = False
        except ValueError as error:
            may_have_left_files = isinstance(error, EndedFromOutsideError)
            raise
        finally:
            if self._done or may_have_left_files:
                self.save()
            else:
                self._path.unlink(missing_ok=True)
                with suppress(OSError):  # half-done work may lie in it
                    if is_new:
                        self.out.rmdir()

    def save(self) -> None:
        done = {name: asdict(job) for name, job in self._done.items()}
        record = {"settings": self.settings, "finished": self._is_finished, "done": done}
        with written_whole(self._path) as file:
            file.write(json.dumps(record, indent=1).encode())
        self._saved_s = time.monotonic()


def _read_record(path: Path) -> _Record:
    """Raises ValueError if it is damaged, or another program's, as others may call theirs so too."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}); delete {path.parent} and prepare the set again."
        ) from error
    if not isinstance(content, dict) or not {"settings", "done"} <= content.keys():
        raise ValueError(
            f"{path} is another program's, and a prepared set has its own of that name; name another folder."
        )
    try:
        done = {str(name): _done_job(entry) for name, entry in dict(content["done"]).items()}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged: it does not say what its jobs left behind; delete {path.parent} and prepare the "
            "set again."
        ) from error
    return _Record(content["settings"], content.get("finished") is True, done)


def _done_job(entry: Any) -> _DoneJob:
    """An entry of the record; KeyError, TypeError or ValueError if it is none."""
    result = entry["result"]
    outputs, counts, warnings = result["outputs"], result["counts"], result.get("warnings", [])
    are_texts = all(
        isinstance(texts, list) and all(isinstance(t, str) for t in texts) for texts in (outputs, warnings)
    )
    are_counts = isinstance(counts, dict) and all(isinstance(count, int) for count in counts.values())
    if not are_texts or not are_counts:
        raise ValueError
    return _DoneJob([int(number) for number in entry["source"]], JobResult(outputs, counts, warnings))


def finished_files(out: Path, split: str) -> list[Path]:
    """What a preparation left of a split, sorted by path.

    Raises:
        ValueError: It was not finished, as far as its record tells, or files of it are gone.
    """
    path = out / LOG_NAME
    if not path.is_file():
        raise ValueError(
            f"{out} has no {LOG_NAME}, so nothing tells whether the set in it is whole; run tools/prepare_data.py "
            "again."
        )
    record = _read_record(path)
    if not record.is_finished:
        raise ValueError(
            f"{path} does not say that the preparation was finished; run tools/prepare_data.py again, which keeps "
            "what is done."
        )
    outputs = [output for job in record.done.values() for output in job.result.outputs]
    files = sorted(out / output for output in outputs if output.startswith(f"{split}/"))
    if gone := [path for path in files if not path.is_file()]:
        more = f" and {len(gone) - 1} more files" if len(gone) > 1 else ""
        raise ValueError(
            f"{gone[0]}{more} of the prepared set {'are' if more else 'is'} gone; run tools/prepare_data.py again."
        )
    return files


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
    signatures = {
        name: signature([source, *(also_read or {}).get(name, ())]) for name, source in sources.items()
    }
    results = {name: log.result(name, of_source) for name, of_source in signatures.items()}
    waiting = [name for name, result in results.items() if result is None]
    failures: dict[str, ValueError] = {}
    on_progress(len(sources) - len(waiting), len(sources))

    def finish(name: str, outcome: Callable[[], JobResult]) -> None:
        try:
            results[name] = result = outcome()
            log.record(name, signatures[name], result)
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
        of_others = log.outputs_of_others(sources)
    finished = [result for result in results.values() if result is not None]
    counts: Counter[str] = Counter()
    for result in finished:
        counts.update(result.counts)
    warnings = [warning for result in finished for warning in result.warnings]
    if of_others:
        more = f" and {len(of_others) - 1} more files" if len(of_others) > 1 else ""
        warnings.append(
            f"{out} also holds {of_others[0]}{more} of an earlier preparation, whose sources were not given this "
            "time; they will be read with the rest, so delete them and prepare again if they should not."
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
            After an interruption too, of the jobs that had come to their end.

    Raises:
        EndedFromOutsideError: A process was killed.
    """
    if workers <= 1 or len(jobs) <= 1:
        for name, arguments in jobs.items():
            finish(name, partial(work, *arguments))
        return
    # Spawned, not forked: the same on every system, and safe beside the threads of torch and of a progress display.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context)
    waiting: dict[Future[_Result], str] = {}
    try:
        for name, arguments in jobs.items():
            waiting[pool.submit(work, *arguments)] = name
        for future in as_completed(list(waiting)):
            finish(waiting.pop(future), future.result)
    except BrokenProcessPool as error:
        raise EndedFromOutsideError(
            "A process of the preparation was ended from outside, most likely for want of memory; start again "
            "with fewer workers (what is done is kept)."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        for future, name in waiting.items():  # none are left but after an interruption or an error
            if not future.cancelled() and future.exception() is None:
                finish(name, future.result)


def signature(paths: Sequence[Path]) -> Signature:
    """Sizes and times of files, by which a later run sees whether they are still the same."""
    statuses = [path.stat() for path in paths]
    return [number for status in statuses for number in (status.st_size, status.st_mtime_ns)]
