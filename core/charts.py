"""What all charts share: figures without a screen, colours, files that are whole."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.atomic_write import written_whole

if TYPE_CHECKING:  # it takes half a second to import, and not every command draws
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, which people who see fewer colours can tell apart; black is theirs, too.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LINES = ("-", "--", ":")
GREY = "#777777"


def new_figure(num_panels: int, *, num_rows: int = 1, label: str) -> "tuple[Figure, list[Axes]]":
    """A figure of panels in rows, with a label under each of the last row; axes in reading order."""
    # Where it keeps its list of fonts concerns nobody, nor that making it takes a while.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Not pyplot, which would look for a screen and keep every figure.
    from matplotlib.figure import Figure

    columns = num_panels // num_rows
    figure = Figure(
        figsize=(5.0 * columns, 3.4 if num_rows == 1 else 2.2 * num_rows), dpi=120, layout="constrained"
    )
    axes = [figure.add_subplot(num_rows, columns, 1 + number) for number in range(num_panels)]
    for number, axis in enumerate(axes):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.tick_params(labelsize=8)
        if number >= num_panels - columns:
            axis.set_xlabel(label, fontsize=9)
    return figure, axes


def look(number: int) -> dict[str, Any]:
    """Colour and line style of the line of that number; 21 differ."""
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "linestyle": _LINES[number // len(_COLOURS) % len(_LINES)],
    }


def legend_beside(axis: "Axes") -> None:
    """Names of an axis' lines, in their colours, to the right of it."""
    axis.legend(
        frameon=False, fontsize=8, labelcolor="linecolor", loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )


def save_figure(figure: "Figure", path: Path) -> None:
    """As PNG; a reader never sees half a file."""
    with written_whole(path) as file:
        figure.savefig(file, format="png")
