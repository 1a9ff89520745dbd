"""Measures the project against others. Run from a checkout, never shipped."""

from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
