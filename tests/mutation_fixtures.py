"""Files of someone else's making gone wrong: odd values anywhere in what they hold, and bytes changed or lost."""

from collections.abc import Iterator
from typing import Any

import numpy as np

# What may stand anywhere in a file of someone else's making.
ODD: list[Any] = [
    *(None, 0, -3, 2.5, float("nan"), 10**40, True, "", "x", b"y", [], (), {}, {"a": 1}, [1, [2, 3]]),
    *(np.zeros(()), np.zeros(3), np.array(["a", "b"]), np.array([None, 1], object), np.zeros((0, 17, 3))),
    *(np.full((5, 17, 2), 1e300), np.zeros((5, 17, 3), complex), np.zeros((5, 17, 3), "M8[s]")),
]


def places_in(content: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    items: Any = []
    if isinstance(content, dict):
        items = content.items()
    elif isinstance(content, list | tuple):
        items = list(enumerate(content))[:4]
    for key, value in items:
        yield from places_in(value, (*place, key))


def changed(content: Any, place: tuple[Any, ...], odd: Any, rng: np.random.Generator) -> Any:
    """A copy with something odd in one place: another value, another key, or nothing."""
    if not place:
        return odd
    key, *rest = place
    copy = dict(content) if isinstance(content, dict) else list(content)
    kind = rng.random()
    if isinstance(copy, dict) and kind < 0.15:
        copy[odd if isinstance(odd, int | str | bytes | tuple) else 3] = copy.pop(key)
    elif isinstance(copy, dict) and kind < 0.25:
        del copy[key]
    else:
        copy[key] = changed(copy[key], tuple(rest), odd, rng)
    return copy


def mutated_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    for _ in range(rng.integers(1, 6)):
        near = rng.random() < 0.5  # to the beginning, where the structure is
        place = int(rng.integers(min(len(data), 600) if near else len(data)))
        kind = rng.integers(4)
        if kind == 0:
            data[place] = int(rng.integers(256))
        elif kind == 1:
            del data[max(place, 1) :]
        elif kind == 2:
            data[place:place] = rng.bytes(8)
        else:
            data[place : place + 8] = b"\xff" * 8
    return bytes(data)
