"""Files and folders that are complete or not there: everything the project writes goes through these.

What a process that was killed had begun stays under a hidden name, `.<name>.<process>.unfinished`, until somebody
who works in the same folder removes it (`remove_abandoned`).
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

_UNFINISHED = "unfinished"


@contextmanager
def written_whole(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the name `path` when the block ends, and vanishes if it fails.

    Written beside its place under a hidden name and renamed, so that a reader never sees half of it; the folder is
    made if need be.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{_UNFINISHED}")
    try:
        with unfinished.open("wb") as file:
            yield file
        os.replace(unfinished, path)
    except OSError as error:
        # A full disk does not say whose file it was, and nobody knows the hidden name. Libraries' own errors
        # have no number, and say enough.
        is_named = error.filename is not None and str(error.filename) != str(unfinished)
        if error.errno is not None and not is_named:
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):  # of what could not be made, nothing is left to remove
            unfinished.unlink(missing_ok=True)


@contextmanager
def folder_written_whole(path: str | Path) -> Iterator[Path]:
    """A folder to fill, which takes the name `path` when the block ends, and vanishes if it fails.

    What was at `path` before is gone then: whether it may go is the caller's to know. Of a link, its target.
    """
    path = Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{_UNFINISHED}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        yield unfinished
        if path.exists():
            shutil.rmtree(path)
        os.replace(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def remove_abandoned(folder: Path) -> None:
    """Removes from a folder, and from those in it, what processes that are no more had begun to write there."""
    if os.name != "posix":  # elsewhere nothing tells whether a process lives without harm to it
        return
    for pattern in (f".*.{_UNFINISHED}", f"*/.*.{_UNFINISHED}"):
        for path in list(folder.glob(pattern)):
            process = path.name.split(".")[-2]
            if not process.isdecimal() or _is_alive(int(process)):
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # somebody else's; no process's number
        return True
    return True
