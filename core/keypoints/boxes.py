"""Boxes around people's keypoints: (left, top, right, bottom) in pixels."""

import numpy as np
from jaxtyping import Float


def boxes_around(
    keypoints_px: Float[np.ndarray, "*batch joint 2"], confidence: Float[np.ndarray, "*batch joint"]
) -> Float[np.ndarray, "*batch 4"]:
    """Around the seen keypoints; zeros where none is."""
    seen = (confidence > 0)[..., None]
    low = np.where(seen, keypoints_px, np.inf).min(axis=-2)
    high = np.where(seen, keypoints_px, -np.inf).max(axis=-2)
    return np.where(seen.any(axis=-2), np.concatenate([low, high], axis=-1), 0.0)


def box_overlap(
    boxes: Float[np.ndarray, "*#batch 4"], others: Float[np.ndarray, "*#batch 4"]
) -> Float[np.ndarray, "*#batch"]:
    """Intersection over union; 0 for boxes without area."""
    sides = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    intersection = sides.clip(min=0).prod(axis=-1)
    areas = [(box[..., 2:] - box[..., :2]).prod(axis=-1) for box in (boxes, others)]
    return np.asarray(intersection / np.maximum(areas[0] + areas[1] - intersection, 1e-9))
