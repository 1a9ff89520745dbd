"""What a command can be told: the choices and keys of its configuration, as its `--help` shows them."""

from pathlib import Path

from omegaconf import OmegaConf

# Choices of a group that a command refuses, with a sentence that says why.
REFUSED = {
    ("train_mesh", "data"): {"3dpw"},
    ("train_pose", "data"): {"3dpw", "mixed"},
    ("eval_pose", "data"): {"3dpw", "mixed"},
    ("side_by_side", "data"): {"3dpw", "mixed"},
}
CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def help_text(config_name: str, description: str) -> str:
    """The description, the groups that the command has a choice of, and its configuration as it is."""
    choices = {
        group: [name for name in choices_of(group) if name not in REFUSED.get((config_name, group), ())]
        for group in sorted(groups_of(config_name))
    }
    choices["experiment"] = experiments_of(config_name)
    lines = [
        f"  {group}: {', '.join(names)}{_needs(group, names)}\n" for group, names in choices.items() if names
    ]
    groups = "".join(["Choices (group=name):\n", *lines, "\n"] if lines else [])
    defaults = (CONFIGS / f"{config_name}.yaml").read_text(encoding="utf-8")
    return (
        f"{description.strip()}\n\n{groups}Keys (key=value), as in configs/{config_name}.yaml:\n\n{defaults}"
    )


def choices_of(group: str) -> list[str]:
    """The configurations of a group, by name."""
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


def experiments_of(config_name: str) -> list[str]:
    """Those of a training command, none of any other; those of lifting begin with pose_."""
    of_lifting = {"train_pose": True, "train_mesh": False}.get(config_name)
    return [name for name in choices_of("experiment") if name.startswith("pose_") == of_lifting]


def _needs(group: str, names: list[str]) -> str:
    """What has to be said with a choice, of those for which something has."""
    by_keys: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        if keys := _mandatory_keys(CONFIGS / group / f"{name}.yaml"):
            by_keys.setdefault(tuple(f"{group}.{key}=…" for key in keys), []).append(name)
    told = [
        f"{', '.join(which)} need{'' if len(which) > 1 else 's'} {' '.join(keys)}"
        for keys, which in by_keys.items()
    ]
    return f"   ({'; '.join(told)})" if told else ""


def _mandatory_keys(path: Path) -> list[str]:
    """Those without a value, in a choice and in what it builds on.

    A folder that is null is one, too: what it has to hold is then said by who reads it.
    """
    config = OmegaConf.load(path)
    keys = [str(key) for key in config if OmegaConf.is_missing(config, key)]
    keys += ["root"] if "root" in config and config["root"] is None else []
    for base in config.get("defaults", []):
        if isinstance(base, str) and base != "_self_":
            keys += _mandatory_keys(path.with_name(f"{base}.yaml"))
    return keys


def groups_of(config_name: str) -> set[str]:
    """What the configuration has a choice of, its own and those of the configurations that it builds on."""
    found = set()
    for entry in OmegaConf.load(CONFIGS / f"{config_name}.yaml").get("defaults", []):
        if isinstance(entry, str):
            found |= groups_of(entry) if entry != "_self_" else set()
        else:
            found |= {str(group).removeprefix("override ") for group in entry}
    return found
