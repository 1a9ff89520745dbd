"""Distances between predicted and true points after the alignments that protocols ask for; any unit of length."""

import torch
from jaxtyping import Float
from torch import Tensor


def mean_point_error(
    points: Float[Tensor, "*batch point 3"], true_points: Float[Tensor, "*batch point 3"]
) -> Float[Tensor, "*batch"]:
    """Mean Euclidean distance over the points."""
    return (points - true_points).norm(dim=-1).mean(dim=-1)


def similarity_aligned(
    points: Float[Tensor, "frame point 3"], true_points: Float[Tensor, "frame point 3"]
) -> Float[Tensor, "frame point 3"]:
    """The points after the rotation, scale and translation, per frame, that bring them nearest to the true ones.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991;
    never a reflection. In double precision inside. Points that all coincide are moved to the true ones' mean.
    """
    import roma  # takes longer to import than all that lifting needs otherwise

    rotmat, translation, scale = roma.rigid_points_registration(
        points.double(), true_points.double(), compute_scaling=True
    )
    turned = scale[:, None, None] * points.double() @ rotmat.transpose(-1, -2)
    # As an untrained network may put them; they have neither a rotation nor a scale.
    coincide = (points == points[:, :1]).flatten(1).all(dim=1)[:, None, None]
    aligned = torch.where(
        coincide, true_points.double().mean(dim=1, keepdim=True), turned + translation[:, None]
    )
    return aligned.to(points.dtype)


def scale_aligned(
    points: Float[Tensor, "*batch point 3"], true_points: Float[Tensor, "*batch point 3"]
) -> Float[Tensor, "*batch point 3"]:
    """The points times the factor, per frame, that brings them nearest to the true ones (N-MPJPE's alignment).

    Rhodin et al., "Unsupervised Geometry-Aware Representation for 3D Human Pose Estimation", ECCV 2018.
    """
    product = (points * true_points).sum(dim=(-2, -1), keepdim=True)
    square = points.square().sum(dim=(-2, -1), keepdim=True)
    # All points in the root, as an untrained network may put them, have no scale.
    return points * product / square.clamp(min=torch.finfo(points.dtype).tiny)


def difference_error(
    points: Float[Tensor, "*batch frame point 3"],
    true_points: Float[Tensor, "*batch frame point 3"],
    *,
    order: int,
) -> Float[Tensor, "*batch inner_frame"]:
    """Mean distance between `order`-th differences in time: 1 velocity, 2 acceleration, per frame^order.

    There are `order` entries fewer than frames, but never less than none.
    """
    if points.shape[-3] <= order:
        return points.new_zeros(*points.shape[:-3], 0)
    return mean_point_error(points.diff(n=order, dim=-3), true_points.diff(n=order, dim=-3))
