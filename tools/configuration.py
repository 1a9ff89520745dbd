"""A command's configuration: composed by Hydra from the command line's overrides, and checked."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from command_help import CONFIGS, choices_of, experiments_of, groups_of
from command_keys import check_keys, no_such_key
from command_names import with_quoted_names
from hydra import compose
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue
from value_kinds import check_kinds, check_out


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
    overrides = with_quoted_names(overrides)
    for override in overrides:
        group, _, name = override.partition("=")
        if group == "experiment" and name in choices_of(group) and name not in experiments_of(config_name):
            owner = "train_pose" if name in experiments_of("train_pose") else "train_mesh"
            raise ValueError(f"experiment={name} is of tools/{owner}.py.")
        known = experiments_of(config_name) if group == "experiment" else choices_of(group)
        is_choice = group in {"experiment", *groups_of(config_name)} and re.fullmatch(r"\w+", name)
        if known and is_choice and name not in (*choices_of(group), "null"):
            near = get_close_matches(name, known, n=1)
            meant = f"Did you mean {group}={near[0]}? " if near else ""
            raise ValueError(f"There is no {group}={name}. {meant}Choose one of {', '.join(known)}.")
    try:
        config = OmegaConf.to_container(compose(config_name, overrides), resolve=True, throw_on_missing=True)
    except ConfigCompositionException as error:
        several = re.match(r"Ambiguous value for argument '([^']+)'", str(error))
        if several is not None:
            key, _, values = several[1].partition("=")
            raise ValueError(
                f"{several[1]} holds several values; lists are in brackets: {key}=[{values}]."
            ) from error
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
    check_keys(config, shipped)
    if "out" in config:
        check_out(Path(str(config["out"])), leaves_file=Path(str(shipped["out"])).suffix != "")
    return {str(key): value for key, value in config.items()}


def _as_shipped(config_name: str, overrides: list[str]) -> Any:
    """The configuration without what the command line changes, but with the files that it chooses."""
    groups = {folder.name for folder in CONFIGS.iterdir() if folder.is_dir()}
    chosen = [override for override in overrides if override.partition("=")[0] in groups]
    return OmegaConf.to_container(compose(config_name, chosen), resolve=False)
