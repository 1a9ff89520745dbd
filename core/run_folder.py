"""Where a command runs and what it leaves: the device, files written whole, the code that was used."""

import json
import subprocess
from pathlib import Path
from typing import Any

import torch

from core.atomic_write import written_whole

_CHECKOUT = Path(__file__).resolve().parents[1]


def choose_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; ValueError says when the named device cannot be used."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"There is no device {name!r}; choose auto, cpu or cuda.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda was asked for, but torch sees no GPU; use device=cpu or auto.")
    return torch.device(name)


def write_text(path: Path, text: str) -> None:
    """In UTF-8; complete or not at all."""
    with written_whole(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Indented; complete or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


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
