"""The folder of a run: which code and configuration made it, and what came of it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[1]


def write_text(path: Path, text: str) -> None:
    """Complete or not at all."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


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
