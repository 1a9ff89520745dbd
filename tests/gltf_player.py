"""Plays a .glb as the glTF 2.0 specification says, from its bytes alone: what a viewer shows at a key frame."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

_DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
_WIDTHS = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class GltfPlayer:
    """One skinned mesh, one animation."""

    def __init__(self, path: Path) -> None:
        content = path.read_bytes()
        magic, version, length = struct.unpack_from("<4sII", content)
        assert (magic, version, length) == (b"glTF", 2, len(content))
        json_length, json_kind = struct.unpack_from("<I4s", content, 12)
        assert json_kind == b"JSON"
        self.document: dict[str, Any] = json.loads(content[20 : 20 + json_length])
        blob_length, blob_kind = struct.unpack_from("<I4s", content, 20 + json_length)
        assert blob_kind == b"BIN\0"
        self.blob = content[28 + json_length :][:blob_length]
        (self.mesh,) = self.document["meshes"]
        (self.primitive,) = self.mesh["primitives"]
        (self.animation,) = self.document["animations"]

    def array(self, index: int) -> np.ndarray:
        accessor = self.document["accessors"][index]
        dtype, width, count = _DTYPES[accessor["componentType"]], _WIDTHS[accessor["type"]], accessor["count"]
        if "bufferView" in accessor:
            array = self._view(accessor["bufferView"], dtype, count * width).reshape(count, width)
        else:
            array = np.zeros((count, width), dtype)
        if "sparse" in accessor:
            sparse = accessor["sparse"]
            indices, values = sparse["indices"], sparse["values"]
            ids = self._view(indices["bufferView"], _DTYPES[indices["componentType"]], sparse["count"])
            assert (np.diff(ids.astype(int)) > 0).all()
            array[ids] = self._view(values["bufferView"], dtype, sparse["count"] * width).reshape(-1, width)
        for bound, reduce in (("min", np.min), ("max", np.max)):
            if bound in accessor:
                np.testing.assert_allclose(accessor[bound], reduce(array, axis=0), atol=1e-7)
        return array

    def track(self, node: int, path: str) -> np.ndarray:
        """The key values of one animated property, a row per key frame."""
        (channel,) = [
            channel
            for channel in self.animation["channels"]
            if channel["target"] == {"node": node, "path": path}
        ]
        sampler = self.animation["samplers"][channel["sampler"]]
        return self.array(sampler["output"]).reshape(len(self.array(sampler["input"])), -1)

    def key_times_s(self) -> np.ndarray:
        (times,) = {sampler["input"] for sampler in self.animation["samplers"]}
        return self.array(times)[:, 0]

    def vertices(self, key: int) -> np.ndarray:
        """World positions of all vertices at a key frame: morph targets, then weighted joints."""
        nodes = self.document["nodes"]
        (mesh_node,) = [index for index, node in enumerate(nodes) if "mesh" in node]
        attributes = self.primitive["attributes"]
        positions = self.array(attributes["POSITION"]).astype(float)
        if "targets" in self.primitive:
            weights = self.track(mesh_node, "weights")[key]
            for weight, target in zip(weights, self.primitive["targets"], strict=True):
                positions += weight * self.array(target["POSITION"])
        (skin,) = self.document["skins"]
        inverse_bind = self.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        T_world_joint = (
            np.stack([self._world_transform(joint, key) for joint in skin["joints"]]) @ inverse_bind
        )
        num_sets = sum(name.startswith("JOINTS_") for name in attributes)
        joints = np.concatenate([self.array(attributes[f"JOINTS_{i}"]) for i in range(num_sets)], axis=1)
        weights = np.concatenate([self.array(attributes[f"WEIGHTS_{i}"]) for i in range(num_sets)], axis=1)
        np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-6)
        T_world_vertex = np.einsum("vs,vsij->vij", weights, T_world_joint[joints])
        return np.einsum("vij,vj->vi", T_world_vertex[:, :3, :3], positions) + T_world_vertex[:, :3, 3]

    def _world_transform(self, index: int, key: int) -> np.ndarray:
        node = self.document["nodes"][index]
        animated = {channel["target"]["path"] for channel in self.animation["channels"]
                    if channel["target"]["node"] == index}  # fmt: skip
        local = np.eye(4)
        rotation = (
            self.track(index, "rotation")[key]
            if "rotation" in animated
            else node.get("rotation", [0, 0, 0, 1])
        )
        local[:3, :3] = Rotation.from_quat(rotation).as_matrix()
        local[:3, 3] = (
            self.track(index, "translation")[key]
            if "translation" in animated
            else node.get("translation", [0, 0, 0])
        )
        parents = [i for i, other in enumerate(self.document["nodes"]) if index in other.get("children", [])]
        return self._world_transform(parents[0], key) @ local if parents else local

    def _view(self, index: int, dtype: type, count: int) -> np.ndarray:
        view = self.document["bufferViews"][index]
        array = np.frombuffer(self.blob, dtype, count, view.get("byteOffset", 0))
        assert array.nbytes == view["byteLength"]
        return array.copy()
