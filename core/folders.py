"""Folders: walking through them, linked ones too, as data sets are often made of links; one writer each."""

import fnmatch
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

_LOCK = ".ssr_stf.lock"
# Of this process, by the lock's file.
_held: set[Path] = set()


def walk(folder: Path, *, skip_unreadable: bool = False) -> Iterator[tuple[Path, list[str], list[str]]]:
    """(folder, names of its folders, names of its files) from the top down, as `os.walk`, through links.

    Each folder once, wherever it is linked, so that links may be circular. What the caller takes out of the list of
    folders is not entered.

    Raises:
        OSError: A folder cannot be read, unless such folders are to be skipped.
    """
    entered = {folder.resolve()}
    for parent, folders, names in os.walk(
        folder, followlinks=True, onerror=None if skip_unreadable else _raise
    ):
        folders.sort()
        yield Path(parent), folders, sorted(names)
        for name in list(folders):
            place = Path(parent, name).resolve()
            if place in entered:
                folders.remove(name)
            entered.add(place)


def files_below(folder: Path, pattern: str) -> Iterator[Path]:
    """Files at any depth whose names match, as `walk` finds them.

    Raises:
        OSError: A folder cannot be read.
    """
    for parent, _, names in walk(folder):
        yield from (parent / name for name in fnmatch.filter(names, pattern))


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """No other process that asks likewise writes into the folder during this block; blocks of one may be nested.

    The folder is made if need be, and goes if nothing is left in it then. A process that is killed leaves the file
    of the lock, which keeps nobody out.

    Raises:
        ValueError: Another process writes there now.
    """
    path = folder.resolve() / _LOCK
    if path in _held:
        yield
        return
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"Another process that is running now writes into {folder}; let it end, or give another folder by "
            "out=…"
        ) from None
    _held.add(path)
    try:
        yield
    finally:
        _held.remove(path)
        with suppress(OSError):  # where a file in use stays, whoever releases it removes it
            path.unlink()
        lock.release()
        if is_new:
            with suppress(OSError):  # it holds something
                folder.rmdir()


def _raise(error: OSError) -> None:
    raise error
