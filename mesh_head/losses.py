"""Training losses: named terms in metres and matrix entries; a term of weight zero is not computed.

All points are relative to the pelvis and in the crop frame, so no term depends on where the person stands.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from body_models.parameters import BodyParameters
from mesh_head.supervision import BodyPoints


@dataclass(frozen=True)
class MeshTarget:
    """What a clip should become, in its crop frame.

    Attributes:
        parameters: true rotations and betas (B, T, …).
        points: joints (B, T, J, 3) and sampled vertices (B, T, S, 3) relative to the pelvis, metres.
    """

    parameters: BodyParameters
    points: BodyPoints


@dataclass(frozen=True, kw_only=True)
class MeshLoss:
    """Weighted sum of the terms below; each attribute is the weight of the term of its name.

    Attributes:
        joints: mean distance of the skeleton's joints, m.
        vertices: mean distance of the sampled vertices, m.
        velocity: mean distance between the joints' frame-to-frame displacements, m per frame.
        root_rotation: mean absolute difference of the root matrix's entries.
        body_rotation: the same for the 23 other joints, relative to their parents.
        betas: mean absolute difference of the shape coefficients.
        betas_size: mean square of the predicted shape coefficients.
    """

    joints: float
    vertices: float
    velocity: float
    root_rotation: float
    body_rotation: float
    betas: float
    betas_size: float

    def terms(
        self, predicted: BodyParameters, points: BodyPoints, target: MeshTarget
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms with a weight, unweighted, by name."""
        true_points = target.points
        compute: dict[str, Callable[[], Tensor]] = {
            "joints": lambda: _distance(points.joints_m, true_points.joints_m),
            "vertices": lambda: _distance(points.vertices_m, true_points.vertices_m),
            "velocity": lambda: _distance(points.joints_m.diff(dim=-3), true_points.joints_m.diff(dim=-3)),
            "root_rotation": lambda: _absolute(predicted.root_rotmat, target.parameters.root_rotmat),
            "body_rotation": lambda: _absolute(predicted.body_rotmat, target.parameters.body_rotmat),
            "betas": lambda: _absolute(predicted.betas, target.parameters.betas),
            "betas_size": lambda: predicted.betas.square().mean(),
        }
        return {name: term() for name, term in compute.items() if getattr(self, name) > 0}

    def total(self, terms: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """The weighted sum of `terms`."""
        return torch.stack([getattr(self, name) * value for name, value in terms.items()]).sum()


def _distance(points: Tensor, true_points: Tensor) -> Tensor:
    # The tiny term keeps the gradient finite where a point is already exact (the pelvis always is).
    return ((points - true_points).square().sum(dim=-1) + 1e-12).sqrt().mean()


def _absolute(values: Tensor, true_values: Tensor) -> Tensor:
    return (values - true_values).abs().mean()
