"""Whether values of a configuration are of the kinds that are shipped, and `out` is where something can be left."""

import os
from pathlib import Path
from typing import Any

from command_names import is_path

# In this order: a bool is an int, too.
_KINDS: dict[str, type | tuple[type, ...]] = {
    "true or false": bool,
    "a number": (int, float),
    "text": str,
    "a list": list,
    "a table": dict,
}
# Of the keys that are something else as shipped.
_MAY_BE_NULL = {
    *(
        "schedule.max_steps",
        "schedule.max_seconds",
        "schedule.max_gradient_norm",
        "schedule.weight_average_decay",
        "schedule.muon_learning_rate",
    ),
    *("backbone.weights", "head.weights", "noise", "clips.noise", "cost_seconds"),
    *("evaluation.max_stretches", "clips.evaluation.max_stretches", "validation.max_sequences"),
}
# Of the keys that take one name as shipped.
_MAY_BE_SEVERAL = {"protocol"}


def check_kinds(value: Any, shipped: Any, key: str = "") -> None:
    """ValueError if a value is of another kind than what is shipped under its key, in tables at any depth."""
    if isinstance(value, dict) and isinstance(shipped, dict):
        for name in value.keys() & shipped.keys():
            check_kinds(value[name], shipped[name], f"{key}.{name}" if key else str(name))
        return
    kind, expected = _kind(value), _kind(shipped)
    if is_path(key) and kind not in ("text", "nothing"):
        raise ValueError(f"{key}={value} is {kind}, and {key} takes the name of a file or folder.")
    if value is None and shipped == "???":
        raise ValueError(f"{key}=null: {key} has to be given.")
    if value is None and shipped is not None and expected != "nothing" and key not in _MAY_BE_NULL:
        raise ValueError(f"{key}=null: {key} takes {expected}.")
    if "nothing" in (kind, expected) or kind == expected or (kind == "a list" and key in _MAY_BE_SEVERAL):
        return
    example = str(shipped).lower() if isinstance(shipped, bool) else shipped
    raise ValueError(f"{key}={value} is {kind}, and {key} takes {expected}, as in {key}={example}.")


def check_out(out: Path, *, leaves_file: bool) -> None:
    """ValueError if the file, or else folder, could not be left there: said before the work is done, not after."""
    if leaves_file and out.is_dir():
        raise ValueError(f"out={out} is a folder, and this command leaves a file there.")
    if not leaves_file and out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file, and this command leaves a folder there.")
    place = out.parent if leaves_file else out
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ValueError(f"out={out} cannot be written: {place} is no folder that you may write to.")


def _kind(value: Any) -> str:
    """In words; "nothing" for what is not there yet: null, missing, or said elsewhere."""
    if value is None or (isinstance(value, str) and (value == "???" or "${" in value)):
        return "nothing"
    return next((kind for kind, types in _KINDS.items() if isinstance(value, types)), type(value).__name__)
