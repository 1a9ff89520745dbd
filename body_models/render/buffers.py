"""What a renderer hands back: fragments (one visible surface point per covered pixel) and finished images."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Fragments:
    """The surface points seen through the centres of the covered pixels of a batch of frames.

    Attributes:
        pixel: index into the flattened (frame, row, column) grid; every covered pixel once.
        face: index into the mesh's faces, the same list for every frame.
        barycentric: perspective-correct weights of the face's three corners; they sum to 1.
        depth_m: camera-frame z of the point, in metres.
    """

    pixel: Int[Tensor, " fragment"]
    face: Int[Tensor, " fragment"]
    barycentric: Float[Tensor, "fragment 3"]
    depth_m: Float[Tensor, " fragment"]

    def frame(self, image_size: tuple[int, int]) -> Int[Tensor, " fragment"]:
        """Which frame of the batch each fragment belongs to, for frames of `image_size` = (height, width)."""
        return self.pixel // (image_size[0] * image_size[1])


@dataclass(frozen=True)
class RenderOutput:
    """Rendered frames; every back-end keeps the same conventions.

    Attributes:
        rgb: colours in 0–1, already multiplied by `alpha`: black where nothing was drawn.
        alpha: coverage in 0–1; fractional only with supersampling or with a soft silhouette.
        depth_m: camera-frame z at the pixel's centre, in metres; 0 is background.
        face_id: index of the face seen at the pixel's centre; −1 is background. None from pyrender, which
            does not tell.
    """

    rgb: Float[Tensor, "frame height width 3"]
    alpha: Float[Tensor, "frame height width"]
    depth_m: Float[Tensor, "frame height width"]
    face_id: Int[Tensor, "frame height width"] | None

    @property
    def mask(self) -> Bool[Tensor, "frame height width"]:
        """Pixels whose centre a surface covers."""
        return self.depth_m > 0

    def over(self, background: Float[Tensor, "*background 3"]) -> Float[Tensor, "frame height width 3"]:
        """Lay the frames over a background image or colour that broadcasts to (frame, height, width, 3)."""
        return self.rgb + (1 - self.alpha[..., None]) * background


def scatter_to_image(
    values: Float[Tensor, "fragment *channel"],
    pixel: Int[Tensor, " fragment"],
    num_frames: int,
    size: tuple[int, int],
) -> Float[Tensor, "frame height width *channel"]:
    """Write one value per fragment into zero-filled frames of `size` = (height, width); differentiable."""
    num_pixels = num_frames * size[0] * size[1]
    image = values.new_zeros((num_pixels, *values.shape[1:])).index_copy_(0, pixel, values)
    return image.reshape(num_frames, *size, *values.shape[1:])


def face_ids_to_image(
    fragments: Fragments, num_frames: int, size: tuple[int, int]
) -> Int[Tensor, "frame height width"]:
    """The face seen at each pixel's centre; −1 where there is none."""
    face_id = torch.full(
        (num_frames * size[0] * size[1],), -1, dtype=torch.int64, device=fragments.face.device
    )
    return face_id.index_copy_(0, fragments.pixel, fragments.face).reshape(num_frames, *size)
