"""Where a command runs and what it leaves: the device, files written whole, the code that was used."""

import json
import math
import re
import shutil
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from core.atomic_write import written_whole

_LEFT_BY_RUNS = (
    *("config.yaml", "commit.txt", "checkpoints"),
    *("model.safetensors", "metrics.json", "learning.png", "preview.png", "mesh.obj", "motion.glb"),
)
_CHECKOUT = Path(__file__).resolve().parents[1]


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; ValueError says when the named device cannot be used.

    Args:
        name: "auto" | "cpu" | "cuda" | "cuda:N", the GPU of that number.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise ValueError(f"There is no device {name!r}; choose auto, cpu, cuda or cuda:N.")
    if name == "cpu":
        return torch.device(name)
    if not torch.cuda.is_available():
        raise ValueError(f"device={name} was asked for, but torch sees no GPU; use device=cpu or auto.")
    device, num_gpus = torch.device(name), torch.cuda.device_count()
    if device.index is not None and device.index >= num_gpus:
        raise ValueError(f"device={name} was asked for, but torch sees {num_gpus} GPUs, numbered from 0.")
    return device


def describe_device(device: torch.device) -> str:
    """For whoever reads a result: which processor, and with how many threads or which GPU."""
    if device.type == "cuda":
        return f"{device}, {torch.cuda.get_device_name(device)}"
    num_threads = torch.get_num_threads()
    return f"{device}, {num_threads} thread{'s' if num_threads != 1 else ''}"


def write_text(path: Path, text: str) -> None:
    """In UTF-8; complete or not at all."""
    with written_whole(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Indented; complete or not at all. What is not finite (NaN: a mean of nothing) becomes null."""
    write_text(path, json.dumps(_with_null(content), indent=2, allow_nan=False) + "\n")


def _with_null(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _with_null(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_with_null(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def set_aside_previous_run(out: Path) -> None:
    """Moves what an earlier run left in its folder to the sub-folder `previous`, in place of what was there.

    A run that did not finish goes to `unfinished` instead, if `previous` holds one that did.

    Raises:
        ValueError: What lies there, or is to be replaced, is no run of these commands.
    """
    if not (out / "config.yaml").is_file():
        return
    previous, weights = out / "previous", "model.safetensors"
    if (previous / weights).is_file() and not (out / weights).is_file():
        previous = out / "unfinished"
    for folder in (out, previous):
        if folder.exists() and any(folder.iterdir()) and not _holds_run(folder):
            raise ValueError(
                f"{folder} holds what is no run of this project (its config.yaml would have a schedule and a "
                "curriculum); give another folder by out=…, or move that away."
            )
    shutil.rmtree(previous, ignore_errors=True)
    previous.mkdir()
    for name in _LEFT_BY_RUNS:
        if (out / name).exists():
            (out / name).rename(previous / name)


def _holds_run(folder: Path) -> bool:
    try:
        lines = (folder / "config.yaml").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return all(any(line.startswith(key) for line in lines) for key in ("schedule:", "curriculum:"))


def refuse_other_settings(
    out: Path, before: Mapping[str, Any], now: Mapping[str, Any], *, may_differ: Collection[str]
) -> None:
    """ValueError if a run folder's run had other settings, all but those that may differ.

    Args:
        before, now: configurations as plain dicts and lists.
        may_differ: keys, with dots where they lie deeper ("schedule.max_steps").
    """
    flat_before, flat_now = _flat(before), _flat(now)
    # Copies of other keys, which users do not set, come last.
    for key in sorted(flat_before.keys() | flat_now.keys(), key=lambda key: (key.startswith("clips."), key)):
        allowed = any(key == other or key.startswith(f"{other}.") for other in may_differ)
        if not allowed and flat_before.get(key) != flat_now.get(key):
            raise ValueError(
                f"{out} holds a run with {key}={flat_before.get(key)}, not {flat_now.get(key)}; set it likewise, "
                "or give another folder by out=…"
            )


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by their keys, with dots where they lie deeper; a list is one value."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def describe_code() -> str:
    """Commit of the checkout and its uncommitted changes, or why there is neither."""
    if not (_CHECKOUT / ".git").exists():
        return "not a git checkout\n"
    try:
        commit = _git("rev-parse", "HEAD")
        difference = _git("diff", "HEAD")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"git did not answer: {error}\n"
    return commit + ("\nuncommitted changes:\n" + difference if difference else "")


def _git(*arguments: str) -> str:
    finished = subprocess.run(
        ["git", "-C", str(_CHECKOUT), *arguments],
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
    )
    return finished.stdout
