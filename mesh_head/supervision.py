"""The points of a body that training looks at: skeleton joints and a sampled set of vertices.

Skinning 7,000 vertices for every frame of a batch would cost more than the network, so only the vertices
that the joint regressor needs and the sampled ones are ever computed.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from body_models.joint_regressors import JointRegressor
from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody


@dataclass(frozen=True)
class BodyPoints:
    """Points of posed bodies, in the frame of their root rotation."""

    joints_m: Float[Tensor, "*batch joint 3"]
    vertices_m: Float[Tensor, "*batch sample 3"]

    def relative_to_pelvis(self) -> "BodyPoints":
        """About joint 0, the pelvis of the skeleton."""
        pelvis = self.joints_m[..., :1, :]
        return BodyPoints(self.joints_m - pelvis, self.vertices_m - pelvis)


class SupervisedBody(nn.Module):
    """A body cut down to a skeleton's joints and `num_vertices` vertices spread evenly over the surface.

    Args:
        sampled_vertex_ids: those vertices, where they are to be the same as of another body with this mesh.
    """

    support_ids: Tensor
    sample_ids: Tensor

    def __init__(
        self,
        *,
        body: SmplBody,
        regressor: JointRegressor,
        num_vertices: int,
        sampled_vertex_ids: Int[np.ndarray, "sample"] | None = None,
    ) -> None:
        super().__init__()
        sampled = sampled_vertex_ids
        if sampled is None:
            sampled = farthest_points(body.v_template.double().cpu().numpy(), num_vertices)
        support = regressor.support.cpu().numpy()
        kept = np.union1d(sampled, support)
        self.sampled_vertex_ids = sampled
        self.body = body.restricted_to(torch.from_numpy(kept))
        self.regressor = regressor.restricted()
        ids = {"support_ids": np.searchsorted(kept, support), "sample_ids": np.searchsorted(kept, sampled)}
        for name, value in ids.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)

    def forward(self, parameters: BodyParameters) -> BodyPoints:
        vertices = self.body(parameters).vertices_m
        joints = self.regressor(vertices[..., self.support_ids, :])
        return BodyPoints(joints, vertices[..., self.sample_ids, :])


def farthest_points(points: Float[np.ndarray, "point 3"], num_points: int) -> Int[np.ndarray, "sample"]:
    """Sorted ids of `num_points` points, each chosen farthest from those before it, starting at point 0."""
    if not 0 < num_points <= len(points):
        raise ValueError(f"{num_points} points cannot be chosen among {len(points)}.")
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < num_points:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.sort(np.array(chosen))
