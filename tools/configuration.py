"""A command's configuration: composed by Hydra from the command line's overrides, and checked."""

import os
import re
from pathlib import Path
from typing import Any

from command_help import CONFIGS, choices_of, experiments_of
from command_keys import no_such_key, with_quoted_paths
from hydra import compose
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from value_kinds import check_kinds

_OPEN_TABLES = {"rows.", "peers."}


def configuration(config_name: str, overrides: list[str]) -> dict[str, Any]:
    """Plain values by key.

    Raises:
        ValueError: an experiment is another command's, a key does not exist or has to be given, or a value is of
            another kind than the one it replaces.
        HydraException, OmegaConfBaseException: whatever else is wrong with an override.
    """
    for override in overrides:
        if "=" not in override and not override.startswith("~"):
            raise ValueError(
                f"{override!r} is not understood: settings are key=value, as in out=FOLDER; see --help."
            )
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
        if (CONFIGS / unknown[1]).is_dir():
            raise ValueError(
                f"This command has no choice of {unknown[1]}; see --help for those it has."
            ) from error
        raise ValueError(no_such_key(unknown[1], _as_shipped(config_name, overrides))) from error
    except MissingMandatoryValue as error:
        raise ValueError(f"{error.full_key}=… has to be given; see --help.") from error
    assert isinstance(config, dict)
    check_kinds(config, shipped := _as_shipped(config_name, overrides))
    _check_keys(config, shipped)
    if "out" in config:
        _check_out(Path(str(config["out"])), is_file=Path(str(shipped["out"])).suffix != "")
    return {str(key): value for key, value in config.items()}


def _check_keys(config: dict[Any, Any], shipped: dict[Any, Any], prefix: str = "") -> None:
    """ValueError for keys that were added ("+key=…") or taken away ("~key"), at any depth.

    Not of what is built from its keys (`_target_`): its constructor knows its arguments, and has defaults.
    """
    if "_target_" in shipped or prefix in _OPEN_TABLES:
        return
    for key in config.keys() - shipped.keys():
        raise ValueError(no_such_key(f"{prefix}{key}", shipped))
    for key in shipped.keys() - config.keys():
        raise ValueError(f"{prefix}{key} was taken away (~), and the command needs it; set it instead.")
    for key, value in config.items():
        if isinstance(value, dict) and isinstance(shipped[key], dict):
            _check_keys(value, shipped[key], f"{prefix}{key}.")


def _check_out(out: Path, *, is_file: bool) -> None:
    """ValueError if nothing could be left there: said before the work is done, not after."""
    if is_file and out.is_dir():
        raise ValueError(f"out={out} is a folder, and this command leaves a file there.")
    if not is_file and out.exists() and not out.is_dir():
        raise ValueError(f"out={out} is a file, and this command leaves a folder there.")
    place = out.parent if is_file else out
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise ValueError(f"out={out} cannot be written: {place} is no folder that you may write to.")


def _as_shipped(config_name: str, overrides: list[str]) -> Any:
    """The configuration without what the command line changes, but with the files that it chooses."""
    groups = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    chosen = [override for override in overrides if override.partition("=")[0] in groups]
    return OmegaConf.to_container(compose(config_name, chosen), resolve=False)
