"""What a model is shown of frames in which nothing was seen."""

import torch
from jaxtyping import Float
from torch import Tensor


def across_gaps(
    keypoints_px: Float[Tensor, "frame joint 2"], confidence: Float[Tensor, "frame joint"]
) -> tuple[Float[Tensor, "frame joint 2"], Float[Tensor, "frame joint"]]:
    """Keypoints on straight lines, places and confidences alike, between the frames in which anything was seen.

    A model that is shown nothing for longer than it was in training makes somebody up; of straight lines it makes a
    movement from the one pose to the other (measured, docs/keypoints.md). A joint that is seen at one end of a gap
    alone stays there and fades out. Before the first and after the last seen frame all stays as it is, and so does
    what is unseen in a frame of which something was seen.
    """
    (seen,) = torch.nonzero((confidence > 0).any(dim=1), as_tuple=True)
    if len(seen) == 0:
        return keypoints_px, confidence
    frames = torch.arange(len(confidence), device=confidence.device)
    place = torch.searchsorted(seen, frames)  # of the first seen frame from here on
    before, after = seen[(place - 1).clamp(min=0)], seen[place.clamp(max=len(seen) - 1)]
    is_gap = (before < frames) & (frames < after)
    before, after = before[is_gap], after[is_gap]
    share = ((frames[is_gap] - before) / (after - before)).to(confidence)[:, None]
    bridged_px, bridged = keypoints_px.clone(), confidence.clone()
    bridged[is_gap] = torch.lerp(confidence[before], confidence[after], share)
    on_line_px = torch.lerp(keypoints_px[before], keypoints_px[after], share[..., None])
    on_line_px = torch.where(confidence[after, :, None] > 0, on_line_px, keypoints_px[before])
    bridged_px[is_gap] = torch.where(confidence[before, :, None] > 0, on_line_px, keypoints_px[after])
    return bridged_px, bridged
