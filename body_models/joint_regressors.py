"""From a body's vertices to the joints of a skeleton."""

from jaxtyping import Float
from torch import Tensor, nn

from core.skeleton import Skeleton


class JointRegressor(nn.Module):
    """Each joint of `skeleton` as a weighted sum of vertices.

    Only the vertices with a weight are read. Where nothing else of a body is needed, skin only those:
    `regressor.restricted()(body.restricted_to(regressor.support)(parameters).vertices_m)`.
    """

    support: Tensor  # (support,), ascending ids of the vertices with a non-zero weight
    support_weights: Tensor  # (joint, support)

    def __init__(
        self,
        skeleton: Skeleton,
        weights: Float[Tensor, "joint vertex"],
    ) -> None:
        """
        Args:
            weights: dense or sparse (torch layout), with a row per joint of the skeleton.
        """
        super().__init__()
        weights = weights.to_dense()
        if weights.shape[0] != skeleton.num_joints:
            raise ValueError(
                f"A joint regressor for {skeleton.name} needs {skeleton.num_joints} rows, "
                f"one per joint, but the weights have {weights.shape[0]}."
            )
        self.skeleton = skeleton
        self.num_vertices = weights.shape[1]
        support = weights.any(dim=0).nonzero()[:, 0]
        self.register_buffer("support", support, persistent=False)
        self.register_buffer("support_weights", weights[:, support].contiguous(), persistent=False)

    def forward(self, vertices_m: Float[Tensor, "*batch vertex 3"]) -> Float[Tensor, "*batch joint 3"]:
        """The joints in the vertices' frame and unit.

        Raises:
            ValueError: the vertices are not those of the mesh that the regressor was made for.
        """
        if vertices_m.shape[-2] != self.num_vertices:
            raise ValueError(
                f"This {self.skeleton.name} regressor is made for a mesh of {self.num_vertices} vertices, "
                f"not {vertices_m.shape[-2]}: take the regressor that comes with the body model."
            )
        is_whole_mesh_needed = len(self.support) == self.num_vertices
        support_m = vertices_m if is_whole_mesh_needed else vertices_m.index_select(-2, self.support)
        return self.support_weights @ support_m

    def restricted(self) -> "JointRegressor":
        """The same joints from the support's vertices alone, in the order of `support`."""
        return JointRegressor(self.skeleton, self.support_weights)
