"""Keys of the command line: which name files and folders, which are none, and what a misspelt one was to be."""

import os
import re
from difflib import get_close_matches
from typing import Any

# Keys whose values are names of files and folders, which may look like numbers, lists or worse.
_PATHS = {
    *("input", "video", "motion", "prediction", "root", "out", "weights", "start_from", "keypoints"),
    *("backbone.weights", "head.weights", "body_model.path", "body_model.regressor_path"),
}
# Whose values are names of a user's own, and no numbers either.
_NAMES = {"person"}
# Whose keys are names of the user's own, or refused by who reads them.
_OPEN_TABLES = {"rows.", "peers.", "trainer."}
_PATH_PATTERN = re.compile(r"data\.root|data\.sets\.\w+\.root|peers\.\w+")


def with_quoted_names(overrides: list[str]) -> list[str]:
    """The same for Hydra, with the names of files, folders and people in quotes, so that they stay what they are.

    Raises:
        ValueError: one that should name a file or folder names nothing.
    """
    return [_with_quoted_name(override) for override in overrides]


def _with_quoted_name(override: str) -> str:
    key, has_value, value = override.partition("=")
    names_path = is_path(key.lstrip("+"))
    if names_path and value == "":
        raise ValueError(f"{override} names nothing; give a file or folder, or leave it out.")
    # Quotes are the user's own; a list or a table is no name, and will be refused as such.
    is_name = has_value and (names_path or key in _NAMES) and value not in ("", "null", "???")
    if not is_name or value[0] in "'\"[{":
        return override
    if names_path:  # as a shell does, but for those that leave it as it is after "="
        value = os.path.expanduser(value)
    end = len(value.rstrip("\\"))
    # Before a quote, Hydra takes backslashes by pairs.
    escaped = value[:end].replace("'", "\\'") + 2 * value[end:]
    return f"{key}='{escaped}'"


def is_path(key: str) -> bool:
    """Whether its values are names of files or folders."""
    return key in _PATHS or _PATH_PATTERN.fullmatch(key) is not None


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
