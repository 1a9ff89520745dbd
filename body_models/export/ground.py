"""A motion moved onto the ground: height 0 where people stand, the origin below the pelvis of the first frame.

Where a camera is the origin, bodies are metres before and below it. All frames move by one constant, so that steps,
jumps and places relative to each other stay as they are.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody

# Of the lowest points of all frames. Feet are on the ground for more of the time than this where people jump, run,
# climb or sit with their feet up, and what is below it are toes that push off and frames that are wrong.
_PERCENTILE = 25
# Evenly spread, they tell it as well as all of a long motion.
_MOST_FRAMES = 1000
# Posed together; bounds the memory.
_FRAMES_AT_ONCE = 64


def ground_height_m(lowest_m: Float[np.ndarray, "frame"]) -> float:
    """Height of the ground under a body, by its lowest point's in each frame; one wrong frame decides nothing."""
    return float(np.percentile(lowest_m, _PERCENTILE, method="higher"))


@torch.no_grad()
def ground_offset_yup_m(
    body: SmplBody,
    people: Sequence[BodyParameters],
    *,
    above_origin: BodyParameters,
    R_yup_frame: Float[Tensor, "3 3"],
) -> Float[Tensor, "3"]:
    """What moves people onto the ground, added to positions that are y up.

    Of several people each has a ground of their own, as far as their distance from the camera is wrong; the median
    over all their frames counts.

    Args:
        people: batch shapes (T,), in one frame.
        above_origin: whose pelvis is above the origin in the first of its frames.
        R_yup_frame: from the frame of the parameters to y up.

    Returns:
        On the CPU.
    """
    R_yup_frame = R_yup_frame.cpu()
    grounds_m = [ground_height_m(_lowest_m(body, person, R_yup_frame)) for person in people]
    ground_m = np.median(np.repeat(grounds_m, [len(person.root_rotmat) for person in people]))
    rest_pelvis_m = body.shape(above_origin.betas).rest_joints_m[0, 0]
    pelvis_yup_m = R_yup_frame @ (rest_pelvis_m + above_origin.translation_m[0]).cpu()
    return -torch.stack([pelvis_yup_m[0], pelvis_yup_m.new_tensor(ground_m), pelvis_yup_m[2]])


def moved(
    parameters: BodyParameters, offset_yup_m: Float[Tensor, "3"], R_yup_frame: Float[Tensor, "3 3"]
) -> BodyParameters:
    """The same bodies elsewhere, in their own frame; `offset_yup_m` is added to positions that are y up."""
    offset_m = (R_yup_frame.T @ offset_yup_m).to(parameters.translation_m)
    return replace(parameters, translation_m=parameters.translation_m + offset_m)


def _lowest_m(
    body: SmplBody, parameters: BodyParameters, R_yup_frame: Float[Tensor, "3 3"]
) -> Float[np.ndarray, "frame"]:
    """Height of the lowest vertex, in at most `_MOST_FRAMES` of the frames."""
    up = R_yup_frame[1].to(parameters.translation_m)
    frames = list(range(0, len(parameters.root_rotmat), -(-len(parameters.root_rotmat) // _MOST_FRAMES)))
    groups = [frames[first : first + _FRAMES_AT_ONCE] for first in range(0, len(frames), _FRAMES_AT_ONCE)]
    lowest_m = [(body(parameters.select(group)).vertices_m @ up).amin(dim=-1) for group in groups]
    return torch.cat(lowest_m).cpu().double().numpy()
