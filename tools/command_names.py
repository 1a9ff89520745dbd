"""Values of the command line that are names, of files, folders and people, and stay as they are written."""

import os
import re

# Keys whose values are names of files and folders, which may look like numbers, lists or worse.
_PATHS = {
    *("input", "video", "motion", "prediction", "root", "out", "weights", "start_from", "keypoints"),
    *("backbone.weights", "head.weights", "body_model.path", "body_model.regressor_path"),
}
# Whose values are names of a user's own, and no numbers either.
_NAMES = {"person"}
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
