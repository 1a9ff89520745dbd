"""Training losses: named terms in metres and matrix entries; a term of weight zero is not computed.

All points are relative to the pelvis and in the crop frame, so no term depends on where the person stands.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor

from body_models.parameters import BodyParameters
from core.settings import require_number
from mesh_head.supervision import BodyPoints


@dataclass(frozen=True)
class MeshTarget:
    """What a clip should become, in its crop frame, as far as its data set knows.

    Attributes:
        parameters: true rotations and betas (B, T, …); None where only joints are known.
        points: joints (B, T, J, 3) and sampled vertices (B, T, S, 3) relative to the pelvis, metres; S is 0
            where only joints are known.
        are_betas_known: False where the betas are of another body model, or of another gender.
    """

    parameters: BodyParameters | None
    points: BodyPoints
    are_betas_known: bool = True


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

    def __post_init__(self) -> None:
        for field in fields(self):
            require_number(f"loss.{field.name}", getattr(self, field.name), least=0.0)

    def terms(
        self, predicted: BodyParameters, points: BodyPoints, target: MeshTarget
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms with a weight that the target knows about, unweighted, by name."""
        true_points, true = target.points, target.parameters
        compute: dict[str, Callable[[], Tensor]] = {
            "joints": lambda: _distance(points.joints_m, true_points.joints_m),
            "betas_size": lambda: predicted.betas.square().mean(),
        }
        if true_points.joints_m.shape[-3] > 1:
            compute["velocity"] = lambda: _distance(
                points.joints_m.diff(dim=-3), true_points.joints_m.diff(dim=-3)
            )
        if true_points.vertices_m.shape[-2] > 0:
            compute["vertices"] = lambda: _distance(points.vertices_m, true_points.vertices_m)
        if true is not None:
            compute["root_rotation"] = lambda: _absolute(predicted.root_rotmat, true.root_rotmat)
            compute["body_rotation"] = lambda: _absolute(predicted.body_rotmat, true.body_rotmat)
            if target.are_betas_known:
                compute["betas"] = lambda: _absolute(predicted.betas, true.betas)
        weighted = (field.name for field in fields(self) if getattr(self, field.name) > 0)
        return {name: compute[name]() for name in weighted if name in compute}

    def total(self, terms: dict[str, Float[Tensor, ""]]) -> Float[Tensor, ""]:
        """The weighted sum of `terms`; ValueError if there are none."""
        if not terms:
            raise ValueError(
                "No term of the loss that has a weight is known of these clips, so there is nothing to learn; give "
                "loss.joints a weight above 0."
            )
        return torch.stack([getattr(self, name) * value for name, value in terms.items()]).sum()


def _distance(points: Tensor, true_points: Tensor) -> Tensor:
    # The tiny term keeps the gradient finite where a point is already exact (the pelvis always is).
    return ((points - true_points).square().sum(dim=-1) + 1e-12).sqrt().mean()


def _absolute(values: Tensor, true_values: Tensor) -> Tensor:
    return (values - true_values).abs().mean()
