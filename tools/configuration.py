"""A command's configuration: composed by Hydra from the command line's overrides, and checked."""

from pathlib import Path
from typing import Any

from command_help import CONFIGS, choices_of, experiments_of
from hydra import compose
from omegaconf import OmegaConf

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
    ),
    *("backbone.weights", "noise", "clips.noise", "cost_seconds"),
    *("evaluation.max_stretches", "clips.evaluation.max_stretches", "validation.max_sequences"),
}


def configuration(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """Plain values by key.

    Raises:
        ValueError: an experiment is another command's, or a value is of another kind than the one it replaces.
        HydraException, OmegaConfBaseException: a key or a choice does not exist, or a value is missing.
    """
    for override in overrides:
        group, _, name = override.partition("=")
        if group == "experiment" and name in choices_of(group) and name not in experiments_of(config_name):
            owner = "train_pose" if name in experiments_of("train_pose") else "train_mesh"
            raise ValueError(f"experiment={name} is of tools/{owner}.py.")
    config = OmegaConf.to_container(compose(config_name, overrides), resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    _check_kinds(config, shipped := _as_shipped(config_name, overrides))
    # Said before the work is done, not after: some commands leave a file, as theirs is named.
    if Path(str(shipped.get("out"))).suffix and Path(str(config["out"])).is_dir():
        raise ValueError(f"out={config['out']} is a folder, and this command leaves a file there.")
    return {str(key): value for key, value in config.items()}


def _as_shipped(config_name: str, overrides: list[str]) -> Any:
    """The configuration without what the command line changes, but with the files that it chooses."""
    groups = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    chosen = [override for override in overrides if override.partition("=")[0] in groups]
    return OmegaConf.to_container(compose(config_name, chosen), resolve=False)


def _check_kinds(value: Any, shipped: Any, key: str = "") -> None:
    if isinstance(value, dict) and isinstance(shipped, dict):
        for name in value.keys() & shipped.keys():
            _check_kinds(value[name], shipped[name], f"{key}.{name}" if key else str(name))
        return
    kind, expected = _kind(value), _kind(shipped)
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
