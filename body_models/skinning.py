"""Blend shapes and linear blend skinning for many frames in blocks, so that intermediates stay in cache.

The textbook way holds a 4×4 matrix per vertex and frame: for 256 frames of 7,000 vertices it writes and reads
114 MB of them. Here some hundred vertices of some dozen frames are blended, carried along and written once.
Coordinates are kept in planes, (frame, coordinate, vertex), so that every pass runs over long rows. A block
uses only the coefficients and the joints that move any of its vertices; where blend shapes and weights are
local, most of them drop out.
"""

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

VERTICES_PER_BLOCK = 512
# Intermediates of 1.5 MB in float32 fit a core's cache; on other devices only memory limits a block.
FRAMES_PER_BLOCK_ON_CPU = 64
FRAMES_PER_BLOCK_ELSEWHERE = 4096


class VertexBlock(nn.Module):
    """Consecutive vertices, with the blend-shape coefficients and the joints that move any of them."""

    basis: Tensor  # (used coefficient, 3 · vertex)
    weights: Tensor  # (used joint, vertex)
    coefficient_ids: Tensor
    joint_ids: Tensor

    def __init__(
        self,
        first_vertex: int,
        basis: Float[np.ndarray, "coefficient 3 vertex"],
        weights: Float[np.ndarray, "joint vertex"],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.num_vertices = weights.shape[1]
        self.vertices = slice(first_vertex, first_vertex + self.num_vertices)
        coefficient_ids, joint_ids = _non_zero_rows(basis), _non_zero_rows(weights)
        used_basis = basis[coefficient_ids].reshape(len(coefficient_ids), -1)
        self.register_buffer("basis", torch.from_numpy(used_basis).to(dtype), persistent=False)
        self.register_buffer("weights", torch.from_numpy(weights[joint_ids]).to(dtype), persistent=False)
        self.register_buffer("coefficient_ids", torch.from_numpy(coefficient_ids), persistent=False)
        self.register_buffer("joint_ids", torch.from_numpy(joint_ids), persistent=False)

    def blend(
        self, coefficients: Float[Tensor, "frame coefficient"]
    ) -> Float[Tensor, "frame 3 block_vertex"]:
        """Template, shape and pose blend shapes in one product."""
        used = coefficients.index_select(1, self.coefficient_ids)
        return (used @ self.basis).view(-1, 3, self.num_vertices)

    def vertex_transforms(
        self, T_posed_rest: Float[Tensor, "frame 12 joint"]
    ) -> Float[Tensor, "frame 3 4 block_vertex"]:
        """The weighted mean of the joints' 3×4 transforms for every vertex."""
        used = T_posed_rest.index_select(2, self.joint_ids)
        return (used.flatten(0, 1) @ self.weights).view(-1, 3, 4, self.num_vertices)


class VertexBlocks(nn.ModuleList):
    """All vertices of a body, in blocks."""

    def __init__(
        self,
        basis: Float[np.ndarray, "coefficient 3 vertex"],
        weights: Float[np.ndarray, "joint vertex"],
        dtype: torch.dtype,
    ) -> None:
        self.num_vertices = weights.shape[1]
        super().__init__(
            VertexBlock(
                first,
                basis[..., first : first + VERTICES_PER_BLOCK],
                weights[..., first : first + VERTICES_PER_BLOCK],
                dtype,
            )
            for first in range(0, weights.shape[1], VERTICES_PER_BLOCK)
        )

    def __iter__(self) -> Iterator[VertexBlock]:
        return cast(Iterator[VertexBlock], super().__iter__())


def skin_blockwise(
    coefficients: Float[Tensor, "frame coefficient"],
    T_posed_rest: Float[Tensor, "frame 12 joint"],
    translation_m: Float[Tensor, "frame 3"],
    blocks: VertexBlocks,
) -> Float[Tensor, "frame vertex 3"]:
    """Blended, skinned and translated vertices. Differentiable once; nothing per vertex is kept for backward.

    Args:
        coefficients: of template (1), shape and pose directions.
        T_posed_rest: each joint's row-major 3×4 transform from rest to posed.
        translation_m: added after skinning, so that it is exact where weights sum to one only nearly.
    """
    vertices_m: Tensor = _BlockwiseSkinning.apply(coefficients, T_posed_rest, translation_m, blocks)
    return vertices_m


class _BlockwiseSkinning(torch.autograd.Function):
    """Autograd would keep every block's intermediates; computing them again is faster than fetching them."""

    @staticmethod
    def forward(
        ctx: Any, coefficients: Tensor, T_posed_rest: Tensor, translation_m: Tensor, blocks: VertexBlocks
    ) -> Tensor:
        ctx.save_for_backward(coefficients, T_posed_rest)
        ctx.blocks = blocks
        vertices_m = coefficients.new_empty(len(coefficients), blocks.num_vertices, 3)
        for block in blocks:
            for frames in _frame_slices(coefficients):
                x, y, z = block.blend(coefficients[frames])[:, :, None].unbind(1)
                T_x, T_y, T_z, T_translation = block.vertex_transforms(T_posed_rest[frames]).unbind(2)
                planes = torch.addcmul(T_translation, T_x, x).addcmul_(T_y, y).addcmul_(T_z, z)
                torch.add(
                    planes.transpose(1, 2),
                    translation_m[frames, None],
                    out=vertices_m[frames, block.vertices],
                )
        return vertices_m

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_vertices: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        coefficients, T_posed_rest = ctx.saved_tensors
        grad_coefficients, grad_T = torch.zeros_like(coefficients), torch.zeros_like(T_posed_rest)
        for block in ctx.blocks:
            for frames in _frame_slices(coefficients):
                grad_planes = grad_vertices[frames, block.vertices].transpose(1, 2).contiguous()
                T_vertex = block.vertex_transforms(T_posed_rest[frames])

                grad_blended = T_vertex[:, 0, :3] * grad_planes[:, :1]
                grad_blended.addcmul_(T_vertex[:, 1, :3], grad_planes[:, 1:2])
                grad_blended.addcmul_(T_vertex[:, 2, :3], grad_planes[:, 2:])
                grad_used_coefficients = grad_blended.flatten(1) @ block.basis.T
                grad_coefficients[frames].index_add_(1, block.coefficient_ids, grad_used_coefficients)

                grad_T_vertex = T_vertex  # overwritten: a fresh array of this size would leave the cache
                blended = block.blend(coefficients[frames])
                torch.mul(grad_planes[:, :, None], blended[:, None], out=grad_T_vertex[:, :, :3])
                grad_T_vertex[:, :, 3] = grad_planes
                grad_used_T = grad_T_vertex.view(-1, block.num_vertices) @ block.weights.T
                grad_T[frames].index_add_(2, block.joint_ids, grad_used_T.unflatten(0, (-1, 12)))
        return grad_coefficients, grad_T, grad_vertices.sum(1), None


def _frame_slices(coefficients: Tensor) -> Iterator[slice]:
    is_on_cpu = coefficients.device.type == "cpu"
    frames_per_block = FRAMES_PER_BLOCK_ON_CPU if is_on_cpu else FRAMES_PER_BLOCK_ELSEWHERE
    for first in range(0, len(coefficients), frames_per_block):
        yield slice(first, first + frames_per_block)


def _non_zero_rows(array: Float[np.ndarray, "row *columns"]) -> Int[np.ndarray, " non_zero_row"]:
    return np.flatnonzero(array.reshape(len(array), -1).any(axis=1))
