"""Keys of the command line: which are none, and what a misspelt one was to be."""

from difflib import get_close_matches
from typing import Any

# Whose keys are names of the user's own, or refused by who reads them.
_OPEN_TABLES = {"rows.", "peers.", "trainer."}


def check_keys(
    config: dict[Any, Any], shipped: dict[Any, Any], prefix: str = "", whole: dict[Any, Any] | None = None
) -> None:
    """ValueError for keys that were added ("+key=…") or taken away ("~key"), at any depth.

    Not of what is built from its keys (`_target_`): its constructor knows its arguments, and has defaults.
    """
    if "_target_" in shipped or prefix in _OPEN_TABLES:
        return
    for key in config.keys() - shipped.keys():
        raise ValueError(no_such_key(f"{prefix}{key}", whole or shipped))
    for key in shipped.keys() - config.keys():
        raise ValueError(f"{prefix}{key} was taken away (~), and the command needs it; set it instead.")
    for key, value in config.items():
        if isinstance(value, dict) and isinstance(shipped[key], dict):
            check_keys(value, shipped[key], f"{prefix}{key}.", whole or shipped)


def no_such_key(key: str, shipped: Any) -> str:
    """A sentence about a key that the shipped configuration lacks, with the nearest that it has."""
    near = get_close_matches(key, _keys(shipped), n=1)
    parent: Any = shipped
    for name in key.split(".")[:-1]:
        parent = parent.get(name) if isinstance(parent, dict) else None
    if not near and isinstance(parent, dict) and "_target_" in parent:
        return (
            f"There is no setting '{key}'; if {parent['_target_']} has such an argument, give it with a plus: "
            f"+{key}=…"
        )
    meant = f"Did you mean {near[0]}? " if near else ""
    return f"There is no setting '{key}'. {meant}See --help for those there are."


def _keys(value: Any, key: str = "") -> list[str]:
    """All keys of nested tables, with dots."""
    below = value.items() if isinstance(value, dict) else ()
    return [
        *([key] if key else []),
        *(k for n, v in below for k in _keys(v, f"{key}.{n}" if key else str(n))),
    ]
