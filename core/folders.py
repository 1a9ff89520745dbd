"""Walking through folders, linked ones too: data sets are often put together from links."""

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path


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


def _raise(error: OSError) -> None:
    raise error
