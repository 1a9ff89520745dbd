"""A command's configuration: composed by Hydra from the command line's overrides, and checked."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from command_help import CONFIGS, choices_of, experiments_of
from hydra import compose
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue

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
    *("backbone.weights", "noise", "clips.noise", "cost_seconds"),
    *("evaluation.max_stretches", "clips.evaluation.max_stretches", "validation.max_sequences"),
}
# Keys whose values are names of files and folders, which may look like numbers, lists or worse.
_PATHS = {
    *("input", "video", "motion", "prediction", "root", "out", "weights", "start_from"),
    *("backbone.weights", "body_model.path", "body_model.regressor_path"),
}
_PATH_PATTERN = re.compile(r"data\.root|data\.sets\.\w+\.root|peers\.\w+")


def configuration(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """Plain values by key.

    Raises:
        ValueError: an experiment is another command's, a key does not exist or has to be given, or a value is of
            another kind than the one it replaces.
        HydraException, OmegaConfBaseException: whatever else is wrong with an override.
    """
    overrides = with_quoted_paths(overrides)
    for override in overrides:
        group, _, name = override.partition("=")
        if group == "experiment" and name in choices_of(group) and name not in experiments_of(config_name):
            owner = "train_pose" if name in experiments_of("train_pose") else "train_mesh"
            raise ValueError(f"experiment={name} is of tools/{owner}.py.")
    try:
        config = OmegaConf.to_container(compose(config_name, overrides), resolve=True, throw_on_missing=True)
    except ConfigCompositionException as error:
        unknown = re.match(r"Could not override '([^']+)'", str(error))
        if unknown is None:
            raise
        raise ValueError(_no_such_key(unknown[1], _as_shipped(config_name, overrides))) from error
    except MissingMandatoryValue as error:
        raise ValueError(f"{error.full_key}=… has to be given; see --help.") from error
    assert isinstance(config, dict)
    _check_kinds(config, shipped := _as_shipped(config_name, overrides))
    for key in config.keys() - shipped.keys():  # by "+key=…"
        raise ValueError(_no_such_key(str(key), shipped))
    # Said before the work is done, not after: some commands leave a file, as theirs is named.
    if Path(str(shipped.get("out"))).suffix and Path(str(config["out"])).is_dir():
        raise ValueError(f"out={config['out']} is a folder, and this command leaves a file there.")
    return {str(key): value for key, value in config.items()}


def _as_shipped(config_name: str, overrides: list[str]) -> Any:
    """The configuration without what the command line changes, but with the files that it chooses."""
    groups = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    chosen = [override for override in overrides if override.partition("=")[0] in groups]
    return OmegaConf.to_container(compose(config_name, chosen), resolve=False)


def with_quoted_paths(overrides: list[str]) -> list[str]:
    """The same for Hydra, with the names of files and folders in quotes, so that they stay what they are."""
    return [_with_quoted_path(override) for override in overrides]


def _with_quoted_path(override: str) -> str:
    key, has_value, value = override.partition("=")
    # Quotes are the user's own; a list or a table is no name, and will be refused as such.
    if not has_value or not _is_path(key.lstrip("+")) or value in ("", "null", "???") or value[0] in "'\"[{":
        return override
    end = len(value.rstrip("\\"))
    # Before a quote, Hydra takes backslashes by pairs.
    escaped = value[:end].replace("'", "\\'") + 2 * value[end:]
    return f"{key}='{escaped}'"


def _is_path(key: str) -> bool:
    return key in _PATHS or _PATH_PATTERN.fullmatch(key) is not None


def _no_such_key(key: str, shipped: Any) -> str:
    near = get_close_matches(key, _keys(shipped), n=1)
    meant = f"Did you mean {near[0]}? " if near else ""
    return f"There is no setting '{key}'. {meant}See --help for those there are."


def _keys(value: Any, key: str = "") -> list[str]:
    """All keys of nested tables, with dots."""
    below = value.items() if isinstance(value, dict) else ()
    return [
        *([key] if key else []),
        *(k for n, v in below for k in _keys(v, f"{key}.{n}" if key else str(n))),
    ]


def _check_kinds(value: Any, shipped: Any, key: str = "") -> None:
    if isinstance(value, dict) and isinstance(shipped, dict):
        for name in value.keys() & shipped.keys():
            _check_kinds(value[name], shipped[name], f"{key}.{name}" if key else str(name))
        return
    kind, expected = _kind(value), _kind(shipped)
    if _is_path(key) and kind not in ("text", "nothing"):
        raise ValueError(f"{key}={value} is {kind}, and {key} takes the name of a file or folder.")
    if value is None and shipped == "???":
        raise ValueError(f"{key}=null: {key} has to be given.")
    if value is None and shipped is not None and expected != "nothing" and key not in _MAY_BE_NULL:
        raise ValueError(f"{key}=null: {key} takes {expected}.")
    # What takes a name may take several.
    if "nothing" in (kind, expected) or kind == expected or (kind, expected) == ("a list", "text"):
        return
    example = str(shipped).lower() if isinstance(shipped, bool) else shipped
    raise ValueError(f"{key}={value} is {kind}, and {key} takes {expected}, as in {key}={example}.")


def _kind(value: Any) -> str:
    """In words; "nothing" for what is not there yet: null, missing, or said elsewhere."""
    if value is None or (isinstance(value, str) and (value == "???" or "${" in value)):
        return "nothing"
    return next((kind for kind, types in _KINDS.items() if isinstance(value, types)), type(value).__name__)
