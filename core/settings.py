"""Checks of what a user has set, each in one sentence that names the key."""

import math
import os
from collections.abc import Sequence
from typing import Any


def require_number(
    key: str,
    value: object,
    *,
    least: int | float | None = None,
    above: int | float | None = None,
    most: int | float | None = None,
    below: int | float | None = None,
    whole: bool = False,
    may_be_null: bool = False,
) -> None:
    """ValueError unless `value` is a finite number within these bounds.

    Args:
        key: as the user writes it, "schedule.warmup_steps".
        value: what was set.
        least, most: the bounds themselves are allowed.
        above, below: the bounds themselves are not.
        whole: 2.5 is refused; so is true, which Python takes for 1, everywhere.
        may_be_null: None is allowed, too.
    """
    if value is None and may_be_null:
        return
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if is_number and isinstance(value, int | float) and math.isfinite(value):
        bounds_hold = (
            (least is None or value >= least)
            and (above is None or value > above)
            and (most is None or value <= most)
            and (below is None or value < below)
        )
        if bounds_hold:
            return
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("of at least", least), ("above", above), ("of at most", most), ("below", below))
        if bound is not None
    ]
    kind = "a whole number" if whole else "a number"
    null = ", or null" if may_be_null else ""
    shown = "null" if value is None else str(value).lower() if isinstance(value, bool) else value
    raise ValueError(f"{key} must be {' '.join([kind, ' and '.join(bounds)]).strip()}{null}, not {shown}.")


def require_range(key: str, value: object, **bounds: Any) -> None:
    """ValueError unless `value` is (low, high), low at most high, both within the bounds of `require_number`."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        raise ValueError(f"{key} must be two numbers, the lowest and the highest, as in [1,2], not {value}.")
    for end in value:
        require_number(f"Each end of {key}", end, **bounds)
    if value[0] > value[1]:
        raise ValueError(f"{key} must begin with its lower end, not {list(value)}.")


def require_threads(key: str, value: object) -> None:
    """ValueError unless it is a number of threads that a process survives: OpenMP dies of too many."""
    require_number(key, value, least=1, most=16 * (os.cpu_count() or 1), whole=True)


def require_switch(key: str, value: object, *, may_be_null: bool = False) -> None:
    """ValueError unless `value` is true or false; "no" and "off" are text, which Python takes for true."""
    if not (isinstance(value, bool) or (value is None and may_be_null)):
        raise ValueError(
            f"{key} must be true{', false or null' if may_be_null else ' or false'}, not {value}."
        )


def require_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """ValueError unless `value` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{key}={value} is not a choice; choose one of {', '.join(choices)}.")
