"""SMPL as a pure function of its parameters: shape → kinematics → skinning.

Loper et al., "SMPL: A Skinned Multi-Person Linear Model", SIGGRAPH Asia 2015. Same results as `smplx.SMPL`,
sooner: joints come from the betas directly (the joint regressor is folded into joint directions), joints of
one depth turn together, and vertices are skinned in blocks that fit the cache (`body_models.skinning`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from body_models.model_files import read_model_arrays
from body_models.parameters import BodyParameters
from body_models.skinning import VertexBlocks, blend, skin

_MODEL_NAMES = {6999: "open", 6890: "smpl"}


@dataclass(frozen=True)
class ShapedBody:
    """A body's own shape at rest (T-pose, before any rotation and translation), in body axes."""

    betas: Float[Tensor, "*batch beta"]
    rest_joints_m: Float[Tensor, "*batch joint 3"]


@dataclass(frozen=True)
class PosedSkeleton:
    """Where the joints are and how each has turned since rest, in the root rotation's frame, untranslated."""

    rotmat: Float[Tensor, "*batch joint 3 3"]
    joints_m: Float[Tensor, "*batch joint 3"]


@dataclass(frozen=True)
class BodyMesh:
    """A posed body, in the root rotation's frame."""

    vertices_m: Float[Tensor, "*batch vertex 3"]
    joints_m: Float[Tensor, "*batch joint 3"]


@dataclass(frozen=True)
class SmplArrays:
    """A body model in the precision of its file. The vertices may be a subset; the joints are always all."""

    v_template: Float[np.ndarray, "vertex 3"]
    shapedirs: Float[np.ndarray, "vertex 3 beta"]
    posedirs: Float[np.ndarray, "vertex 3 pose_feature"]
    lbs_weights: Float[np.ndarray, "vertex joint"]
    J_regressor: Float[np.ndarray, "joint whole_vertex"]  # of all the file's vertices, whichever are kept
    J_template: Float[np.ndarray, "joint 3"]
    J_shapedirs: Float[np.ndarray, "joint 3 beta"]
    faces: Int[np.ndarray, "face 3"]
    parents: tuple[int, ...]


class SmplBody(nn.Module):
    """A body model of SMPL's form: stateless, differentiable, for any batch shape, dtype and device.

    Its arrays are non-persistent buffers: no licensed array ever enters a checkpoint.
    """

    v_template: Tensor  # (vertex, 3), the mean shape at rest
    joint_basis: Tensor  # (1 + beta, joint · 3)
    faces: Tensor  # (face, 3)
    parent_ids: Tensor  # (joint - 1,), of every joint but the root
    parent_slots: Tensor  # (joint,), the parent's place among the joints one level above

    def __init__(self, arrays: SmplArrays, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.arrays = arrays
        self.parents = arrays.parents
        self.num_vertices, _, self.num_betas = arrays.shapedirs.shape
        self.num_joints = len(arrays.parents)
        self.num_coefficients = 1 + self.num_betas + arrays.posedirs.shape[-1]
        depths = _joint_depths(self.parents)
        self._num_joints_by_depth = np.bincount(depths).tolist()
        first_of_depth = [depths.index(depth) for depth in range(max(depths) + 1)]
        parent_slots = [0, *(parent - first_of_depth[depths[parent]] for parent in self.parents[1:])]
        self.register_buffer("faces", torch.from_numpy(arrays.faces), persistent=False)
        self.register_buffer("parent_ids", torch.tensor(self.parents[1:]), persistent=False)
        self.register_buffer("parent_slots", torch.tensor(parent_slots), persistent=False)
        self._set_floating_buffers(dtype, torch.device("cpu"))

    @staticmethod
    def from_file(path: str | Path, *, num_betas: int = 10, dtype: torch.dtype = torch.float32) -> "SmplBody":
        """Reads an npz in SMPL's layout; raises ValueError naming the file and what is wrong with it."""
        arrays = read_model_arrays(path)
        try:
            return SmplBody.from_arrays(arrays, num_betas=num_betas, dtype=dtype)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @staticmethod
    def from_arrays(
        model_arrays: Mapping[str, np.ndarray],
        *,
        num_betas: int = 10,
        dtype: torch.dtype = torch.float32,
    ) -> "SmplBody":
        """From the arrays of a model file under SMPL's own keys (see `model_files.read_model_arrays`)."""
        shapedirs = model_arrays["shapedirs"]
        if shapedirs.shape[-1] < num_betas:
            raise ValueError(
                f"The body model has {shapedirs.shape[-1]} shape directions, not {num_betas}: "
                f"ask for num_betas={shapedirs.shape[-1]} or fewer."
            )
        shapedirs = shapedirs[..., :num_betas]
        J_regressor = model_arrays["J_regressor"].astype(np.float64)
        arrays = SmplArrays(
            v_template=model_arrays["v_template"],
            shapedirs=shapedirs,
            posedirs=model_arrays["posedirs"],
            lbs_weights=model_arrays["weights"],
            J_regressor=J_regressor,
            J_template=J_regressor @ model_arrays["v_template"],
            J_shapedirs=np.tensordot(J_regressor, shapedirs, axes=1),
            faces=model_arrays["f"].astype(np.int64),
            # The root's parent is the largest unsigned integer in SMPL's own files.
            parents=(-1, *(int(parent) for parent in model_arrays["kintree_table"][0][1:])),
        )
        return SmplBody(arrays, dtype)

    @property
    def model_name(self) -> str:
        """Whose betas these are: bodies are known by their topology, whatever file they are from."""
        return _MODEL_NAMES.get(self.num_vertices, f"of {self.num_vertices} vertices")

    @property
    def dtype(self) -> torch.dtype:
        return self.v_template.dtype

    @property
    def device(self) -> torch.device:
        return self.v_template.device

    @property
    def lbs_weights(self) -> Float[Tensor, "vertex joint"]:
        """How much each joint moves a vertex."""
        return self.blocks.weights.T

    def forward(self, parameters: BodyParameters) -> BodyMesh:
        """Poses the body, in the body's own dtype.

        Raises:
            ValueError: the parameters have another number of betas than the body.
        """
        # Under autocast the products would be taken in 16 bits, which are millimetres at arm's length.
        with torch.autocast(self.device.type, enabled=False):
            shaped = self.shape(parameters.betas)
            skeleton = self.kinematics(shaped, parameters)
            vertices_m = self.skin(shaped, skeleton, parameters)
        joints_m = skeleton.joints_m + parameters.translation_m.to(self.dtype)[..., None, :]
        return BodyMesh(vertices_m, joints_m)

    def joints(self, parameters: BodyParameters) -> Float[Tensor, "*batch joint 3"]:
        """Only the joints, `forward(parameters).joints_m`; no vertex is skinned."""
        with torch.autocast(self.device.type, enabled=False):
            skeleton = self.kinematics(self.shape(parameters.betas), parameters)
            return skeleton.joints_m + parameters.translation_m.to(self.dtype)[..., None, :]

    def shape(self, betas: Float[Tensor, "*batch beta"]) -> ShapedBody:
        """First stage: where the joints of a body of this shape lie at rest.

        Raises:
            ValueError: another number of betas than the body has.
        """
        if betas.shape[-1] != self.num_betas:
            raise ValueError(
                f"The body has {self.num_betas} betas but {betas.shape[-1]} were given: "
                f"cut them or fill them with zeros, or load the body with num_betas={betas.shape[-1]}."
            )
        betas = betas.to(self.dtype)
        rest_joints_m = _with_leading_one(betas) @ self.joint_basis
        return ShapedBody(betas, rest_joints_m.unflatten(-1, (self.num_joints, 3)))

    def rest_vertices(self, betas: Float[Tensor, "*batch beta"]) -> Float[Tensor, "*batch vertex 3"]:
        """The vertices of a body of this shape at rest, in metres."""
        betas = betas.to(self.dtype)
        no_pose = betas.new_zeros(*betas.shape[:-1], 9 * (self.num_joints - 1))
        coefficients = torch.cat([_with_leading_one(betas), no_pose], dim=-1).reshape(
            -1, self.num_coefficients
        )
        vertices_m = blend(coefficients, self.blocks).transpose(1, 2)
        return vertices_m.reshape(*betas.shape[:-1], self.num_vertices, 3)

    def kinematics(self, shaped: ShapedBody, parameters: BodyParameters) -> PosedSkeleton:
        """Second stage: the joints' transforms, chained from the root outwards.

        Joints of one depth turn together: nine steps for SMPL's 24 joints, which are listed by depth.
        """
        rest_joints_m, rotmat = shaped.rest_joints_m, parameters.rotmat.to(self.dtype)
        bones_m = rest_joints_m[..., 1:, :] - rest_joints_m.index_select(-2, self.parent_ids)
        offsets_m = torch.cat([rest_joints_m[..., :1, :], bones_m], dim=-2)
        batch_shape = torch.broadcast_shapes(rest_joints_m.shape[:-2], rotmat.shape[:-3])
        T_parent_joint = nn.functional.pad(
            torch.cat(
                [
                    rotmat.expand(*batch_shape, self.num_joints, 3, 3),
                    offsets_m.expand(*batch_shape, self.num_joints, 3)[..., None],
                ],
                dim=-1,
            ),
            (0, 0, 0, 1),
        )
        T_parent_joint[..., 3, 3] = 1
        T_by_depth: list[Tensor] = []
        for T_parent_level, parent_slots in zip(
            T_parent_joint.split(self._num_joints_by_depth, dim=-3),
            self.parent_slots.split(self._num_joints_by_depth),
            strict=True,
        ):
            is_root = not T_by_depth
            T_by_depth.append(
                T_parent_level if is_root else T_by_depth[-1].index_select(-3, parent_slots) @ T_parent_level
            )
        T_posed_joint = torch.cat(T_by_depth, dim=-3)
        return PosedSkeleton(rotmat=T_posed_joint[..., :3, :3], joints_m=T_posed_joint[..., :3, 3])

    def skin(
        self, shaped: ShapedBody, skeleton: PosedSkeleton, parameters: BodyParameters
    ) -> Float[Tensor, "*batch vertex 3"]:
        """Third stage: vertices at rest with shape and pose blend shapes, carried by weighted joints."""
        body_rotmat = parameters.body_rotmat.to(self.dtype)
        identity = torch.eye(3, dtype=self.dtype, device=self.device)
        pose_feature = (body_rotmat - identity).flatten(-3)
        translation_m = parameters.translation_m.to(self.dtype)
        rest_to_posed_m = skeleton.joints_m - (skeleton.rotmat @ shaped.rest_joints_m[..., None])[..., 0]

        batch_shape = torch.broadcast_shapes(rest_to_posed_m.shape[:-2], translation_m.shape[:-1])
        shape_coefficients = _with_leading_one(shaped.betas).expand(*batch_shape, -1)
        coefficients = torch.cat([shape_coefficients, pose_feature.expand(*batch_shape, -1)], dim=-1)
        T_posed_rest = (
            torch.cat([skeleton.rotmat, rest_to_posed_m[..., None]], dim=-1).flatten(-2).transpose(-1, -2)
        )
        vertices_m = skin(
            coefficients.reshape(-1, self.num_coefficients),
            T_posed_rest.expand(*batch_shape, -1, -1).reshape(-1, 12, self.num_joints),
            translation_m.expand(*batch_shape, -1).reshape(-1, 3),
            self.blocks,
        )
        return vertices_m.view(*batch_shape, self.num_vertices, 3)

    def restricted_to(self, vertex_ids: Int[Tensor, " kept"]) -> "SmplBody":
        """A body with only these vertices, in this order; its joints are exactly those of the whole body.

        Faces with a vertex that is not kept are dropped, the others renumbered.
        """
        kept = vertex_ids.cpu().numpy()
        new_ids = np.full(self.num_vertices, -1)
        new_ids[kept] = np.arange(len(kept))
        faces = new_ids[self.arrays.faces]
        arrays = replace(
            self.arrays,
            v_template=self.arrays.v_template[kept],
            shapedirs=self.arrays.shapedirs[kept],
            posedirs=self.arrays.posedirs[kept],
            lbs_weights=self.arrays.lbs_weights[kept],
            faces=faces[(faces >= 0).all(axis=1)],
        )
        return SmplBody(arrays, self.dtype).to(self.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SmplBody":
        dtype_before = self.dtype
        super()._apply(fn, recurse)
        if self.dtype != dtype_before:
            # From the file's arrays, so that `.double()` gives what loading in float64 gives.
            self._set_floating_buffers(self.dtype, self.device)
        return self

    def _set_floating_buffers(self, dtype: torch.dtype, device: torch.device) -> None:
        arrays = self.arrays
        directions = np.concatenate(
            [arrays.v_template[..., None], arrays.shapedirs, arrays.posedirs], axis=-1
        )
        joint_directions = np.concatenate([arrays.J_template[..., None], arrays.J_shapedirs], axis=-1)
        for name, array in (
            ("v_template", arrays.v_template),
            ("joint_basis", joint_directions.transpose(2, 0, 1).reshape(-1, self.num_joints * 3)),
        ):
            self.register_buffer(name, torch.from_numpy(array).to(dtype).to(device), persistent=False)
        self.blocks = VertexBlocks(directions.transpose(2, 1, 0), arrays.lbs_weights.T, dtype).to(device)


def _joint_depths(parents: tuple[int, ...]) -> list[int]:
    depths = [0]
    for parent in parents[1:]:
        depths.append(depths[parent] + 1)
    assert depths == sorted(depths), "joints are listed by depth (checked when a model file is read)"
    return depths


def _with_leading_one(betas: Float[Tensor, "*batch beta"]) -> Float[Tensor, "*batch 1+beta"]:
    return torch.cat([torch.ones_like(betas[..., :1]), betas], dim=-1)
