"""Binary glTF: a body that moves, rigged, in one file that browsers, Blender and game engines open.

glTF skins a mesh as SMPL does: morph targets first, then weighted joints. SMPL's pose blend shapes are linear in
the entries of R - I of every joint, so as morph targets, 207 of them, whose weights are animated, they make the
file's mesh at every key frame exactly SMPL's. They are few numbers where most are zero, as in the open body; of a
body whose every vertex they move, they are 17 MB.

A vertex of the open body follows up to seven joints; viewers that take four are slightly off (docs/export.md).
SMPL's own vertices follow four.

Source: Khronos Group, "glTF 2.0 Specification", 3.6.2 (sparse accessors), 3.7.2 (morph targets), 3.7.3 (skins).
"""

from pathlib import Path

import numpy as np
import pygltflib as gl
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from body_models.export.rigged import require_rigged_motion
from body_models.parameters import NUM_BODY_JOINTS, BodyParameters
from body_models.render import BODY_COLOR
from body_models.render.shading import vertex_normals
from body_models.smpl import SmplBody
from core.atomic_write import written_whole
from core.rotations import rotmat_to_quaternion
from core.skeleton import SMPL_24

# glTF takes joints in sets of four; bodies have at most seven that move a vertex.
_MAX_INFLUENCES = 8
# Of a frame's time, which glTF holds in single precision: as a share of the step to the next.
_LARGEST_TIME_ERROR = 0.05
_FEATURE_NAMES = [
    f"{joint}_{row}{column}" for joint in SMPL_24.joint_names[1:] for row in range(3) for column in range(3)
]


def write_glb(
    path: str | Path,
    body: SmplBody,
    parameters: BodyParameters,
    *,
    fps: float,
    R_yup_frame: Float[Tensor, "3 3"],
    name: str,
    start_s: float = 0.0,
    pose_blend_shapes: bool | None = None,
) -> None:
    """Writes a rigged mesh and its motion, a key frame per frame; metres and seconds.

    The file appears under its name only when it is complete.

    Args:
        parameters: batch shape (T,), with one shape for all frames: betas (1, beta).
        R_yup_frame: from the frame of the parameters to glTF's, y up and z towards the viewer.
        name: of the mesh and of the animation.
        start_s: time of the first frame; until then players show it standing still.
        pose_blend_shapes: as morph targets. Without them the file is small and plays everywhere, and what
            the joints alone do differs from the body: the open one by 0.8 mm on average (docs/export.md).
            None: of the open body only, since SMPL's are its owners' (`licence_remark`).

    Raises:
        ValueError: no frame, a number that is not finite, or several shapes.
    """
    path = Path(path)
    require_rigged_motion(path, parameters, fps)
    if pose_blend_shapes is None:
        pose_blend_shapes = body.model_name == "open"
    with torch.no_grad():
        rest_vertices_m = body.rest_vertices(parameters.betas)[0].cpu()
        rest_joints_m = body.shape(parameters.betas).rest_joints_m[0].cpu().numpy()

    file = _File()
    body_node = body.num_joints + 1  # the nodes: a node per joint, the frame's, the body's
    inverse_bind = np.tile(np.eye(4, dtype=np.float32), (body.num_joints, 1, 1))
    inverse_bind[:, 3, :3] = -rest_joints_m  # glTF stores columns
    file.document.skins = [
        gl.Skin(
            name="smpl",
            joints=list(range(body.num_joints)),
            skeleton=0,
            inverseBindMatrices=file.add(inverse_bind.reshape(-1, 16), gl.MAT4),
        )
    ]
    file.document.meshes = [_mesh(file, body, rest_vertices_m, name, pose_blend_shapes)]
    file.document.nodes = [
        *_joint_nodes(rest_joints_m, body.parents),
        gl.Node(name="y_up", rotation=rotmat_to_quaternion(R_yup_frame).tolist(), children=[0]),
        gl.Node(name=name, mesh=0, skin=0),
    ]
    file.document.scenes = [gl.Scene(nodes=[body_node - 1, body_node])]
    file.document.scene = 0
    file.document.animations = [
        _animation(
            file,
            parameters,
            rest_joints_m[0],
            fps=fps,
            start_s=start_s,
            name=name,
            weights_node=body_node if pose_blend_shapes else None,
        )
    ]
    content = file.content()
    with written_whole(path) as opened:
        opened.write(content)


def _joint_nodes(rest_joints_m: Float[np.ndarray, "joint 3"], parents: tuple[int, ...]) -> list[gl.Node]:
    nodes = []
    for joint, parent in enumerate(parents):
        offset_m = rest_joints_m[joint] - (rest_joints_m[parent] if parent >= 0 else 0)
        nodes.append(
            gl.Node(
                name=SMPL_24.joint_names[joint],
                translation=offset_m.tolist(),
                rotation=[0.0, 0.0, 0.0, 1.0],
                children=[child for child, its_parent in enumerate(parents) if its_parent == joint],
            )
        )
    return nodes


def _mesh(
    file: "_File",
    body: SmplBody,
    rest_vertices_m: Float[Tensor, "vertex 3"],
    name: str,
    pose_blend_shapes: bool,
) -> gl.Mesh:
    faces = body.faces.cpu()
    attributes = gl.Attributes(
        POSITION=file.add(rest_vertices_m.float().numpy(), gl.VEC3, gl.ARRAY_BUFFER, with_bounds=True),
        NORMAL=file.add(_unit_normals(rest_vertices_m, faces), gl.VEC3, gl.ARRAY_BUFFER),
    )
    joints, weights = _influences(body.arrays.lbs_weights)
    for group in range(joints.shape[1] // 4):
        of_group = slice(4 * group, 4 * group + 4)
        for attribute, array in (("JOINTS", joints), ("WEIGHTS", weights)):
            index = file.add(np.ascontiguousarray(array[:, of_group]), gl.VEC4, gl.ARRAY_BUFFER)
            setattr(attributes, f"{attribute}_{group}", index)
    primitive = gl.Primitive(
        attributes=attributes,
        indices=file.add(faces.numpy().astype(np.uint32).reshape(-1), gl.SCALAR, gl.ELEMENT_ARRAY_BUFFER),
        material=0,
    )
    mesh = gl.Mesh(name=name, primitives=[primitive])
    if pose_blend_shapes:
        primitive.targets = [
            {"POSITION": file.add_sparse_vec3(body.arrays.posedirs[..., feature].astype(np.float32))}
            for feature in range(body.arrays.posedirs.shape[-1])
        ]
        mesh.weights = [0.0] * len(primitive.targets)
        mesh.extras = {"targetNames": _FEATURE_NAMES}
    return mesh


def _unit_normals(
    vertices_m: Float[Tensor, "vertex 3"], faces: Int[Tensor, "face 3"]
) -> Float[np.ndarray, "vertex 3"]:
    normals = vertex_normals(vertices_m[None].double(), faces)[0]
    # A vertex of no face has no normal, and glTF has no zero ones.
    without = normals.norm(dim=-1) < 0.5
    normals[without] = normals.new_tensor([0.0, 1.0, 0.0])
    return normals.float().numpy()


def _influences(
    lbs_weights: Float[np.ndarray, "vertex joint"],
) -> tuple[UInt8[np.ndarray, "vertex slot"], Float[np.ndarray, "vertex slot"]]:
    """Joints and their weights, the greatest first, in as many groups of four as the mesh needs."""
    most = min(int((lbs_weights > 0).sum(axis=1).max()), _MAX_INFLUENCES)
    num_slots = 4 * -(-most // 4)
    joints = np.argsort(-lbs_weights, axis=1, kind="stable")[:, :num_slots]
    weights = np.take_along_axis(lbs_weights, joints, axis=1).clip(min=0)
    weights = weights / weights.sum(axis=1, keepdims=True)
    return np.where(weights > 0, joints, 0).astype(np.uint8), weights.astype(np.float32)


def _animation(
    file: "_File",
    parameters: BodyParameters,
    rest_pelvis_m: Float[np.ndarray, "3"],
    *,
    fps: float,
    start_s: float,
    name: str,
    weights_node: int | None,
) -> gl.Animation:
    """`weights_node`: the node whose morph targets move; None: there are none."""
    num_frames = len(parameters.root_rotmat)
    times_s = (start_s + np.arange(num_frames) / fps).astype(np.float32)
    if np.spacing(times_s[-1]) * fps > _LARGEST_TIME_ERROR:  # so late that single precision holds no steps
        times_s = (np.arange(num_frames) / fps).astype(np.float32)
    keys = file.add(times_s, gl.SCALAR, with_bounds=True)
    animation = gl.Animation(name=name, samplers=[], channels=[])

    def animate(node: int, path: str, values: np.ndarray, kind: str) -> None:
        sampler = gl.AnimationSampler(input=keys, output=file.add(values, kind), interpolation=gl.ANIM_LINEAR)
        target = gl.AnimationChannelTarget(node=node, path=path)
        animation.channels.append(gl.AnimationChannel(sampler=len(animation.samplers), target=target))
        animation.samplers.append(sampler)

    translation_m = parameters.translation_m.detach().cpu().expand(num_frames, 3).numpy()
    animate(0, "translation", (rest_pelvis_m + translation_m).astype(np.float32), gl.VEC3)
    quaternions = rotmat_to_quaternion(parameters.rotmat.detach().double().cpu())
    # q and -q are one rotation, but the way between neighbours is the short one only on one side.
    flips = torch.ones_like(quaternions[..., :1])
    flips[1:] = torch.where((quaternions[1:] * quaternions[:-1]).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    for joint, values in enumerate((quaternions * flips.cumprod(dim=0)).unbind(1)):
        animate(joint, "rotation", values.float().numpy(), gl.VEC4)
    if weights_node is not None:
        rotmat = parameters.body_rotmat.detach().cpu().expand(num_frames, NUM_BODY_JOINTS, 3, 3)
        features = (rotmat - torch.eye(3).to(rotmat)).float().flatten(1)
        animate(weights_node, "weights", features.flatten().numpy(), gl.SCALAR)
    return animation


class _File:
    """A glTF document and the one buffer that its accessors look into."""

    _COMPONENTS: tuple[tuple[type, int], ...] = (
        (np.uint8, gl.UNSIGNED_BYTE),
        (np.uint32, gl.UNSIGNED_INT),
        (np.float32, gl.FLOAT),
    )

    def __init__(self) -> None:
        self.document = gl.GLTF2(
            asset=gl.Asset(version="2.0", generator="ssr-stf-mesh"),
            materials=[
                gl.Material(
                    name="body",
                    pbrMetallicRoughness=gl.PbrMetallicRoughness(
                        baseColorFactor=[*BODY_COLOR, 1.0], metallicFactor=0.0, roughnessFactor=0.8
                    ),
                    alphaCutoff=None,
                )
            ],
        )
        self.blob = bytearray()

    def add(
        self, array: np.ndarray, kind: str, target: int | None = None, *, with_bounds: bool = False
    ) -> int:
        """The index of a new accessor to this array, one element per row."""
        accessor = gl.Accessor(
            bufferView=self._add_view(array.tobytes(), target),
            componentType=next(code for dtype, code in self._COMPONENTS if array.dtype == dtype),
            count=len(array),
            type=kind,
        )
        if with_bounds:
            rows = array.reshape(len(array), -1)
            accessor.min, accessor.max = rows.min(axis=0).tolist(), rows.max(axis=0).tolist()
        return self._add_accessor(accessor)

    def add_sparse_vec3(self, array: Float[np.ndarray, "vertex 3"]) -> int:
        """The same, without the rows that are zero, where that saves anything."""
        ids = np.flatnonzero((array != 0).any(axis=1)).astype(np.uint32)
        if ids.nbytes + array[ids].nbytes >= array.nbytes:
            return self.add(array, gl.VEC3, gl.ARRAY_BUFFER, with_bounds=True)
        if len(ids) == 0:
            ids = np.zeros(1, np.uint32)  # a sparse accessor has at least one element
        accessor = gl.Accessor(
            byteOffset=None,  # of a buffer view, which it has not: all the rest is zero
            componentType=gl.FLOAT,
            count=len(array),
            type=gl.VEC3,
            min=array.min(axis=0).tolist(),
            max=array.max(axis=0).tolist(),
            sparse=gl.Sparse(
                count=len(ids),
                indices=gl.AccessorSparseIndices(
                    bufferView=self._add_view(ids.tobytes()), componentType=gl.UNSIGNED_INT
                ),
                values=gl.AccessorSparseValues(bufferView=self._add_view(array[ids].tobytes())),
            ),
        )
        return self._add_accessor(accessor)

    def content(self) -> bytes:
        """The whole file."""
        self.document.buffers = [gl.Buffer(byteLength=len(self.blob))]
        self.document.set_binary_blob(bytes(self.blob))
        return b"".join(self.document.save_to_bytes())

    def _add_view(self, content: bytes, target: int | None = None) -> int:
        self.document.bufferViews.append(
            gl.BufferView(buffer=0, byteOffset=len(self.blob), byteLength=len(content), target=target)
        )
        self.blob += content
        self.blob += bytes(-len(self.blob) % 4)  # views begin at multiples of four
        return len(self.document.bufferViews) - 1

    def _add_accessor(self, accessor: gl.Accessor) -> int:
        self.document.accessors.append(accessor)
        return len(self.document.accessors) - 1
