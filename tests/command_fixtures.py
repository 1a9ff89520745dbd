"""The commands as a user runs them, and the configurations as the commands see them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"


def composed(name: str, *overrides: str) -> dict[str, Any]:
    """configs/<name>.yaml as the commands see it."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(compose(name, list(overrides)), resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def run_tool(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`python tools/<tool> <arguments>`, to its end, whatever that is."""
    return subprocess.run(_command(tool, *arguments), capture_output=True, text=True, cwd=ROOT)


@contextmanager
def written_by_another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the folder during this block (`core.folders.only_writer`)."""
    held = (
        "import sys, pathlib, time; from core.folders import only_writer\n"
        "with only_writer(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", held, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def kill_tool_after_checkpoint(tool: str, *arguments: str, out: Path) -> int:
    """Starts a training command, kills it when it has left a checkpoint in `out`; the step that it had reached."""
    process = _started_until_checkpoint(out, tool, *arguments)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return int(torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)["global_step"])


def interrupt_tool_after_checkpoint(tool: str, *arguments: str, out: Path) -> tuple[int, str]:
    """The same by Ctrl-C; exit status and what it said on standard error."""
    process = _started_until_checkpoint(out, tool, *arguments)
    os.kill(process.pid, signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, errors


def _started_until_checkpoint(out: Path, tool: str, *arguments: str) -> subprocess.Popen[str]:
    checkpoint = out / "checkpoints" / "last.ckpt"
    process = subprocess.Popen(
        _command(tool, *arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        # Shells start what runs in the background deaf to Ctrl-C, and children inherit that.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 240
    while not checkpoint.is_file() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert checkpoint.is_file()
    return process


def _command(tool: str, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "tools" / tool), *arguments]
