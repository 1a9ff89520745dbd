"""Which skeleton a person's number of keypoints stands for, and which of the keypoints are it."""

from collections.abc import Mapping
from typing import NamedTuple

from core.skeleton import BLAZEPOSE_33, COCO_17, HALPE_26, Skeleton


class Layout(NamedTuple):
    """`num_keypoints` keypoints in a detector's order, of which those at `kept` are the skeleton's joints."""

    name: str
    num_keypoints: int
    skeleton: Skeleton
    kept: list[int]


def _begins_with(skeleton: Skeleton, name: str, num_keypoints: int) -> Layout:
    return Layout(name, num_keypoints, skeleton, list(range(skeleton.num_joints)))


_KNOWN = (
    _begins_with(COCO_17, "COCO-17", 17),
    _begins_with(HALPE_26, "Halpe-26", 26),
    _begins_with(BLAZEPOSE_33, "BlazePose-33", 33),
    _begins_with(COCO_17, "COCO-WholeBody", 133),
    _begins_with(HALPE_26, "Halpe-136", 136),
    # The wrists stand with the hands.
    Layout("Sapiens' 308", 308, COCO_17, [0, 1, 2, 3, 4, 5, 6, 7, 8, 62, 41, 9, 10, 11, 12, 13, 14]),
)
LAYOUTS: Mapping[int, Layout] = {layout.num_keypoints: layout for layout in _KNOWN}


def known_layouts() -> str:
    """Their names, for messages."""
    names = [layout.name for layout in LAYOUTS.values()]
    return f"{', '.join(names[:-1])} and {names[-1]}"
