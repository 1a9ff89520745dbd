"""Blend shapes and linear blend skinning for many frames in blocks, so that intermediates stay in cache.

The textbook way holds a 4×4 matrix per vertex and frame: for 256 frames of 7,000 vertices it writes and reads
114 MB of them. Here some hundred vertices of some dozen frames are blended, carried along and written once.
Coordinates are kept in planes, (frame, coordinate, vertex), so that every pass runs over long rows. A block
uses only the coefficients and the joints that move any of its vertices; where blend shapes and weights are
local, most of them drop out.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

VERTICES_PER_BLOCK = 512
# Up to this many frames all vertices fit at once, and starting many small steps would take the most time.
FEW_FRAMES = 4
# Intermediates of 1.5 MB in float32 fit a core's cache; on other devices only memory limits a block.
FRAMES_PER_BLOCK_ON_CPU = 64
FRAMES_PER_BLOCK_ELSEWHERE = 4096


class VertexBlock(nn.Module):
    """Consecutive vertices. Coefficients and joints that move none of them are left out."""

    basis: Tensor  # (used coefficient, 3 · vertex)
    weights: Tensor  # (used joint, vertex)

    def __init__(
        self, basis: Float[Tensor, "used_coefficient 3 vertex"], weights: Float[Tensor, "used_joint vertex"]
    ) -> None:
        super().__init__()
        self.num_vertices = weights.shape[1]
        self.register_buffer("basis", basis.flatten(1), persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def blend(self, coefficients: Float[Tensor, "frame used_coefficient"]) -> Float[Tensor, "frame 3 vertex"]:
        """Template, shape and pose blend shapes in one product."""
        return (coefficients @ self.basis).view(-1, 3, self.num_vertices)

    def vertex_transforms(
        self, T_posed_rest: Float[Tensor, "frame 12 used_joint"]
    ) -> Float[Tensor, "frame 3 4 vertex"]:
        """The weighted mean of the joints' 3×4 transforms for every vertex."""
        return (T_posed_rest.flatten(0, 1) @ self.weights).view(-1, 3, 4, self.num_vertices)


class VertexBlocks(nn.ModuleList):
    """All vertices of a body, in blocks."""

    weights: Tensor  # (joint, vertex)
    coefficient_ids: Tensor  # of the first block's used coefficients, then of the second's, …
    joint_ids: Tensor  # the same for joints

    def __init__(
        self,
        basis: Float[np.ndarray, "coefficient 3 vertex"],
        weights: Float[np.ndarray, "joint vertex"],
        dtype: torch.dtype,
    ) -> None:
        super().__init__()
        self.num_vertices = weights.shape[1]
        self.register_buffer("weights", torch.from_numpy(weights).to(dtype).contiguous(), persistent=False)
        coefficient_ids, joint_ids = [], []
        for first in range(0, self.num_vertices, VERTICES_PER_BLOCK):
            block_basis = basis[..., first : first + VERTICES_PER_BLOCK]
            block_weights = weights[..., first : first + VERTICES_PER_BLOCK]
            coefficient_ids.append(np.flatnonzero(block_basis.any(axis=(1, 2))))
            joint_ids.append(np.flatnonzero(block_weights.any(axis=1)))
            self.append(
                VertexBlock(
                    torch.from_numpy(block_basis[coefficient_ids[-1]]).to(dtype),
                    torch.from_numpy(block_weights[joint_ids[-1]]).to(dtype),
                )
            )
        self._num_coefficients = [len(ids) for ids in coefficient_ids]
        self._num_joints = [len(ids) for ids in joint_ids]
        self._num_vertices = [block.num_vertices for block in self]
        all_coefficient_ids, all_joint_ids = np.concatenate(coefficient_ids), np.concatenate(joint_ids)
        self.register_buffer("coefficient_ids", torch.from_numpy(all_coefficient_ids), persistent=False)
        self.register_buffer("joint_ids", torch.from_numpy(all_joint_ids), persistent=False)

    def __iter__(self) -> Iterator[VertexBlock]:
        return cast(Iterator[VertexBlock], super().__iter__())

    def coefficients_per_block(
        self, coefficients: Float[Tensor, "frame coefficient"]
    ) -> tuple[Float[Tensor, "frame used_coefficient"], ...]:
        return coefficients.index_select(1, self.coefficient_ids).split(self._num_coefficients, dim=1)

    def transforms_per_block(
        self, T_posed_rest: Float[Tensor, "frame 12 joint"]
    ) -> tuple[Float[Tensor, "frame 12 used_joint"], ...]:
        return T_posed_rest.index_select(2, self.joint_ids).split(self._num_joints, dim=2)

    def vertices_per_block(
        self, vertices_m: Float[Tensor, "frame vertex 3"]
    ) -> tuple[Float[Tensor, "frame block_vertex 3"], ...]:
        return vertices_m.split(self._num_vertices, dim=1)


def blend(
    coefficients: Float[Tensor, "frame coefficient"], blocks: VertexBlocks
) -> Float[Tensor, "frame 3 vertex"]:
    """Vertices at rest: template, shape and pose blend shapes, in planes."""
    block_coefficients = blocks.coefficients_per_block(coefficients)
    return torch.cat(
        [block.blend(used) for block, used in zip(blocks, block_coefficients, strict=True)], dim=-1
    )


def skin(
    coefficients: Float[Tensor, "frame coefficient"],
    T_posed_rest: Float[Tensor, "frame 12 joint"],
    translation_m: Float[Tensor, "frame 3"],
    blocks: VertexBlocks,
) -> Float[Tensor, "frame vertex 3"]:
    """Blended, skinned and translated vertices. Differentiable once.

    Args:
        coefficients: of template (1), shape and pose directions.
        T_posed_rest: each joint's row-major 3×4 transform from rest to posed.
        translation_m: added after skinning, so that it is exact where weights sum to one only nearly.
    """
    if len(coefficients) <= FEW_FRAMES:
        with _one_thread():  # each step is too short to gain from a second one, and would wait for it
            return skin_at_once(coefficients, T_posed_rest, translation_m, blocks)
    return skin_blockwise(coefficients, T_posed_rest, translation_m, blocks)


def skin_at_once(
    coefficients: Float[Tensor, "frame coefficient"],
    T_posed_rest: Float[Tensor, "frame 12 joint"],
    translation_m: Float[Tensor, "frame 3"],
    blocks: VertexBlocks,
) -> Float[Tensor, "frame vertex 3"]:
    """`skin` with all vertices' intermediates in memory."""
    T_vertex = (T_posed_rest.flatten(0, 1) @ blocks.weights).unflatten(0, (-1, 3, 4))
    planes = _carry(blend(coefficients, blocks), T_vertex)
    return (planes + translation_m[..., None]).transpose(1, 2).contiguous()


def skin_blockwise(
    coefficients: Float[Tensor, "frame coefficient"],
    T_posed_rest: Float[Tensor, "frame 12 joint"],
    translation_m: Float[Tensor, "frame 3"],
    blocks: VertexBlocks,
) -> Float[Tensor, "frame vertex 3"]:
    """`skin` with a block's intermediates in memory, for backward too."""
    vertices_m: Tensor = _BlockwiseSkinning.apply(coefficients, T_posed_rest, translation_m, blocks)
    return vertices_m


def _carry(
    blended: Float[Tensor, "frame 3 vertex"], T_vertex: Float[Tensor, "frame 3 4 vertex"]
) -> Float[Tensor, "frame 3 vertex"]:
    """Every vertex by its own transform."""
    x, y, z = blended[:, :, None].unbind(1)
    T_x, T_y, T_z, T_translation = T_vertex.unbind(2)
    return torch.addcmul(T_translation, T_x, x).addcmul_(T_y, y).addcmul_(T_z, z)


class _BlockwiseSkinning(torch.autograd.Function):
    """Autograd would keep every block's intermediates; computing them again is faster than fetching them."""

    @staticmethod
    def forward(
        ctx: Any, coefficients: Tensor, T_posed_rest: Tensor, translation_m: Tensor, blocks: VertexBlocks
    ) -> Tensor:
        ctx.save_for_backward(coefficients, T_posed_rest)
        ctx.blocks = blocks
        vertices_m = coefficients.new_empty(len(coefficients), blocks.num_vertices, 3)
        _for_all_frames(partial(_skin_frames, blocks), coefficients, T_posed_rest, translation_m, vertices_m)
        return vertices_m

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_vertices: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        coefficients, T_posed_rest = ctx.saved_tensors
        grad_coefficients, grad_T = torch.zeros_like(coefficients), torch.zeros_like(T_posed_rest)
        _for_all_frames(
            partial(_skin_frames_backward, ctx.blocks),
            coefficients,
            T_posed_rest,
            grad_vertices,
            grad_coefficients,
            grad_T,
        )
        return grad_coefficients, grad_T, grad_vertices.sum(1), None


def _skin_frames(
    blocks: VertexBlocks,
    coefficients: Tensor,
    T_posed_rest: Tensor,
    translation_m: Tensor,
    vertices_m: Tensor,
) -> None:
    """Fills `vertices_m`."""
    for block, used_coefficients, used_T, block_vertices_m in zip(
        blocks,
        blocks.coefficients_per_block(coefficients),
        blocks.transforms_per_block(T_posed_rest),
        blocks.vertices_per_block(vertices_m),
        strict=True,
    ):
        planes = _carry(block.blend(used_coefficients), block.vertex_transforms(used_T))
        torch.add(planes.transpose(1, 2), translation_m[:, None], out=block_vertices_m)


def _skin_frames_backward(
    blocks: VertexBlocks,
    coefficients: Tensor,
    T_posed_rest: Tensor,
    grad_vertices: Tensor,
    grad_coefficients: Tensor,
    grad_T: Tensor,
) -> None:
    """Adds to `grad_coefficients` and `grad_T`."""
    grads_used_coefficients, grads_used_T = [], []
    for block, used_coefficients, used_T, grad_block_vertices in zip(
        blocks,
        blocks.coefficients_per_block(coefficients),
        blocks.transforms_per_block(T_posed_rest),
        blocks.vertices_per_block(grad_vertices),
        strict=True,
    ):
        grad_planes = grad_block_vertices.transpose(1, 2).contiguous()
        grad_x, grad_y, grad_z = grad_planes[:, :, None].unbind(1)

        T_vertex = block.vertex_transforms(used_T)
        T_to_x, T_to_y, T_to_z = T_vertex[:, :, :3].unbind(1)
        grad_blended = (T_to_x * grad_x).addcmul_(T_to_y, grad_y).addcmul_(T_to_z, grad_z)
        grads_used_coefficients.append(grad_blended.flatten(1) @ block.basis.T)

        grad_T_vertex = T_vertex  # in its place: another array of this size would not fit the cache
        blended = block.blend(used_coefficients)
        torch.mul(grad_planes[:, :, None], blended[:, None], out=grad_T_vertex[:, :, :3])
        grad_T_vertex[:, :, 3] = grad_planes
        grad_used_T = grad_T_vertex.view(-1, block.num_vertices) @ block.weights.T
        grads_used_T.append(grad_used_T.unflatten(0, (-1, 12)))
    grad_coefficients.index_add_(1, blocks.coefficient_ids, torch.cat(grads_used_coefficients, dim=1))
    grad_T.index_add_(2, blocks.joint_ids, torch.cat(grads_used_T, dim=2))


def _for_all_frames(function: Callable[..., None], *per_frame: Tensor) -> None:
    """Calls `function` with some frames' rows of the tensors at a time, for it to fill in place.

    On a CPU every thread has its own frames. Sharing each small step among threads instead, as torch does, makes
    them wait for one another thousands of times: a busy machine then takes ten times longer.
    """
    num_frames, is_on_cpu = len(per_frame[0]), per_frame[0].device.type == "cpu"
    num_threads = torch.get_num_threads() if is_on_cpu else 1
    most_frames = FRAMES_PER_BLOCK_ON_CPU if is_on_cpu else FRAMES_PER_BLOCK_ELSEWHERE
    frames_per_call = max(1, min(most_frames, -(-num_frames // num_threads)))
    calls = zip(*(tensor.split(frames_per_call) for tensor in per_frame), strict=True)
    if num_threads == 1 or num_frames <= frames_per_call:
        for tensors in calls:
            function(*tensors)
        return
    is_inference = torch.is_inference_mode_enabled()

    def call(tensors: tuple[Tensor, ...]) -> None:
        with torch.inference_mode(is_inference), torch.no_grad():  # both are a thread's own
            function(*tensors)

    # Threads are started anew, because those of a lasting pool would be missing after a fork (data loaders do).
    try:
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            list(pool.map(call, calls))
    finally:
        torch.set_num_threads(
            num_threads
        )  # each thread has its own number, but new ones inherit the last set


@contextmanager
def _one_thread() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)
