"""What all commands share: configuration from Hydra overrides, help, and errors as one sentence."""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def run_command(main: Callable[[dict[str, Any]], None], config_name: str, description: str) -> None:
    """Composes configs/<config_name>.yaml with the command line's overrides and calls `main` with plain values.

    `--help` prints the description and all that can be set. What a user got wrong ends with status 2 and one
    sentence on standard error (with `--traceback`, where it came from); anything else is a defect.
    """
    overrides = [argument for argument in sys.argv[1:] if argument != "--traceback"]
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            if {"-h", "--help"} & set(overrides):
                print(_help(config_name, description))
                return
            config = OmegaConf.to_container(
                compose(config_name, overrides), resolve=True, throw_on_missing=True
            )
        assert isinstance(config, dict)
        main({str(key): value for key, value in config.items()})
    except (HydraException, OmegaConfBaseException, ValueError, FileNotFoundError) as error:
        if "--traceback" in sys.argv:
            raise
        _fail(_sentence(error))
    except KeyboardInterrupt:
        _fail("Interrupted.")


def _help(config_name: str, description: str) -> str:
    groups = "\n".join(
        f"  {folder.name}: {', '.join(sorted(path.stem for path in folder.glob('*.yaml')))}"
        for folder in sorted(CONFIGS.iterdir())
        if folder.is_dir()
    )
    defaults = (CONFIGS / f"{config_name}.yaml").read_text(encoding="utf-8")
    return (
        f"{description.strip()}\n\nChoices (group=name):\n{groups}\n\n"
        f"Keys (key=value), as in configs/{config_name}.yaml:\n\n{defaults}"
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, InstantiationException) and isinstance(
        error.__cause__, ValueError | FileNotFoundError
    ):
        error = error.__cause__  # Hydra's wrapping says where in the configuration, the cause says what
    if type(error) in (ValueError, FileNotFoundError):
        return str(error)
    stripped = (line.strip() for line in str(error).splitlines())
    lines = [
        line for line in itertools.takewhile(lambda line: line != "Config search path:", stripped) if line
    ]
    return (
        f"{' '.join(lines[:2])} {', '.join(lines[2:])}".strip(" .") + ". See --help for the keys there are."
    )


def _fail(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)
