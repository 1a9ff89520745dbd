"""A detector's noise beside ours, as tables."""

import math
from dataclasses import fields

from rich.console import Console
from rich.table import Table

from core.keypoints.noise_statistics import NoiseMatch, PartJitter

# Column and number of digits of each field.
_COLUMNS = {
    "fast_percent": ("fast, %", 1),
    "slow_percent": ("slow, %", 1),
    "slow_correlation": ("lag-1", 2),
    "tail": ("tail", 1),
    "confidence_median": ("conf.", 2),
    "confidence_5_percent": ("its 5 %", 2),
}
assert list(_COLUMNS) == [field.name for field in fields(PartJitter)]


def print_match(console: Console, match: NoiseMatch, *, trained_with: tuple[float, float]) -> None:
    """A row for each part of the body, the slow residual by confidence, and what follows for training.

    Args:
        trained_with: least and greatest severity.
    """
    title = f"Detected / our noise at severity {match.severity:.2f}; residuals in % of the torso"
    parts = _table(title, "", *(column for column, _ in _COLUMNS.values()))
    for name, jitter in match.track.parts.items():
        twin = match.twin.parts[name]
        parts.add_row(
            f"{name}s",
            *(_pair(getattr(jitter, key), getattr(twin, key), n) for key, (_, n) in _COLUMNS.items()),
        )
    console.print(parts)
    bins = _table("Slow residual by confidence", *match.track.slow_by_confidence)
    twins = match.twin.slow_by_confidence
    bins.add_row(*(_pair(value, twins[name], 1) for name, value in match.track.slow_by_confidence.items()))
    console.print(bins)
    low, high = trained_with
    place = "above" if match.severity > high else "below" if match.severity < low else "within"
    console.print(
        f"It jitters as our noise does at severity {match.severity:.2f}, {place} the {low:g} to {high:g} that "
        "models are trained with.",
        soft_wrap=True,
    )
    if match.is_too_slow:
        console.print(
            f"At {match.fps:g} frames a second, people's own motion from one to the next looks like jitter: the "
            "severity is more than the detector's.",
            soft_wrap=True,
        )


def _table(title: str, *columns: str) -> Table:
    # Without an edge, 80 columns hold it; narrower ones fold it.
    table = Table(title=title, title_justify="left", show_edge=False, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _pair(detected: float, twin: float, digits: int) -> str:
    return "/".join("–" if math.isnan(value) else f"{value:.{digits}f}" for value in (detected, twin))
