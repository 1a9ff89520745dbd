"""What all commands share: configuration from Hydra overrides, help, and errors as one sentence."""

import itertools
import signal
import sys
from collections.abc import Callable
from typing import Any

from command_help import CONFIGS, help_text
from configuration import configuration
from hydra import initialize_config_dir
from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException

_LOADING = "Loading …"

if sys.stderr.isatty():
    # A command imports this module before torch and what stands on it, which takes seconds.
    print(_LOADING, end="", file=sys.stderr, flush=True)


def run_command(main: Callable[[dict[str, Any]], None], config_name: str, description: str) -> None:
    """Composes configs/<config_name>.yaml with the command line's overrides and calls `main` with plain values.

    `--help` prints the description and all that can be set. What a user got wrong ends with status 2 and one
    sentence on standard error (with `--traceback`, where it came from); anything else is a defect.
    """
    if sys.stderr.isatty():
        print(f"\r{' ' * len(_LOADING)}\r", end="", file=sys.stderr, flush=True)
    overrides = [argument for argument in sys.argv[1:] if argument != "--traceback"]
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            if {"-h", "--help"} & set(overrides):
                print(help_text(config_name, description))
                return
            config = configuration(config_name, overrides)
        from core import process_settings  # --help does without torch

        signal.signal(signal.SIGTERM, _interrupt)
        process_settings.keep_freed_memory()
        with process_settings.subnormal_numbers_as_zero():
            main(config)
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        if "--traceback" in sys.argv:
            raise
        _fail(_sentence(error))
    except KeyboardInterrupt as interruption:  # also by SIGTERM
        _fail(str(interruption) or "Interrupted.")


def _interrupt(signal_number: int, frame: Any) -> None:
    """What is asked to end clears its unfinished files away, as after Ctrl-C."""
    raise KeyboardInterrupt("Terminated.")


def _sentence(error: Exception) -> str:
    if isinstance(error, InstantiationException) and isinstance(
        error.__cause__, ValueError | FileNotFoundError
    ):
        error = error.__cause__  # Hydra's wrapping says where in the configuration, the cause says what
    is_hydras = isinstance(error, HydraException)  # some of which are OSErrors, too
    if isinstance(error, OSError) and error.filename is not None and not is_hydras:
        # What was to be replaced by a finished file is what its writer knows it by.
        return f"{error.filename2 or error.filename}: {error.strerror}."
    if type(error) is ValueError or (isinstance(error, OSError) and not is_hydras):
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
