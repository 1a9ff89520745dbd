"""What all commands share: configuration from Hydra overrides, help, and errors as one sentence."""

import ctypes
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from command_help import CONFIGS, help_text
from configuration import configuration
from hydra import initialize_config_dir
from hydra.errors import HydraException, InstantiationException
from omegaconf.errors import OmegaConfBaseException

# What a user may have told the C library about memory; then nothing else is told.
MALLOC_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
# Parameters of mallopt(3), as malloc.h numbers them.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_INT = 2**31 - 1
# Bytes from which on a block is the kernel's; older versions of glibc refuse more than the second.
_MMAP_THRESHOLDS = (2**30, 2**25)


def run_command(main: Callable[[dict[str, Any]], None], config_name: str, description: str) -> None:
    """Composes configs/<config_name>.yaml with the command line's overrides and calls `main` with plain values.

    `--help` prints the description and all that can be set. What a user got wrong ends with status 2 and one
    sentence on standard error (with `--traceback`, where it came from); anything else is a defect.
    """
    overrides = [argument for argument in sys.argv[1:] if argument != "--traceback"]
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            if {"-h", "--help"} & set(overrides):
                print(help_text(config_name, description))
                return
            config = configuration(config_name, overrides)
        keep_freed_memory()
        with _subnormal_numbers_as_zero():
            main(config)
    except (HydraException, OmegaConfBaseException, ValueError, OSError) as error:
        if "--traceback" in sys.argv:
            raise
        _fail(_sentence(error))
    except KeyboardInterrupt as interruption:
        _fail(str(interruption) or "Interrupted.")


def keep_freed_memory() -> None:
    """Lets glibc keep freed memory for what comes next; every training step asks for the same once more.

    It would hand large blocks back to the kernel, which gives them again page by page, each filled with zeros:
    tens of thousands of page faults a step (docs/ssr_stf.md, "Speed"). Other C libraries have no such call.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None or any(setting in os.environ for setting in MALLOC_SETTINGS):
        return
    # The second alone would make it worse: it ends glibc's own adaptation of the first.
    if any(mallopt(_M_MMAP_THRESHOLD, threshold) for threshold in _MMAP_THRESHOLDS):
        mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)


@contextmanager
def _subnormal_numbers_as_zero() -> Iterator[None]:
    """Lets the CPU take numbers below 1e-38 for zero.

    Softmax makes such numbers once a model's attention is sharp, and they take some processors many times as
    long: a training step of DSTformer came to take five times its time. Set before the first parallel work, so
    that all threads inherit it.
    """
    import torch  # here, because --help does without it

    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


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
