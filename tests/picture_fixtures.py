"""What a picture shows, to look at in numbers."""

import numpy as np
import torch
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from body_models.render.pictures import BACKDROP_TOP, backdrop
from body_models.render.sheets import GAP_PX


def pixels(image: Image.Image) -> Int[Tensor, "height width 3"]:
    return torch.tensor(np.asarray(image), dtype=torch.int64)


def cells(
    sheet: Image.Image, num_rows: int, num_columns: int, size: tuple[int, int]
) -> Int[Tensor, "row column height width 3"]:
    """The pictures of a sheet, the first of which leaves the top of its backdrop free."""
    of_sheet = pixels(sheet)
    height, width = size
    is_top = (of_sheet == torch.tensor(BACKDROP_TOP)).all(-1)
    top, left = is_top.unfold(1, width, 1).all(-1).nonzero()[0].tolist()
    ys = [top + row * (height + GAP_PX) for row in range(num_rows)]
    xs = [left + column * (width + GAP_PX) for column in range(num_columns)]
    return torch.stack([torch.stack([of_sheet[y : y + height, x : x + width] for x in xs]) for y in ys])


def drawn(cells: Int[Tensor, "*cell height width 3"]) -> Bool[Tensor, "*cell height width"]:
    """Where anything is before the backdrop."""
    height, width = cells.shape[-3:-1]
    return (cells != pixels(backdrop((height, width)))).any(-1)


def body_sizes(cells: Int[Tensor, "*cell height width 3"]) -> Int[Tensor, "*cell 2"]:
    """Height above the middle, which casts no shadow, and width at the middle."""
    is_drawn = drawn(cells)
    middle = cells.shape[-3] // 2
    return torch.stack([is_drawn[..., :middle, :].any(-1).sum(-1), is_drawn[..., middle, :].sum(-1)], dim=-1)


def is_reference(cells: Int[Tensor, "*cell height width 3"]) -> Bool[Tensor, "*cell"]:
    """Whether the middle is of the colour of ground truth, warm, and not of that of predictions."""
    middle = cells[..., cells.shape[-3] // 2, cells.shape[-2] // 2, :]
    return middle[..., 0] > middle[..., 2] + 10
