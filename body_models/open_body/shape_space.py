"""A linear shape space with unit-variance coefficients."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray


@dataclass(frozen=True, kw_only=True)
class ShapeSpace:
    """vertices = mean + directions @ betas, betas ~ N(0, 1) over the sampled people; metres, T-pose."""

    mean: Float[ndarray, "vertex 3"]
    directions: Float[ndarray, "vertex 3 num_betas"]
    explained_variance_ratio: Float[ndarray, " num_betas"]

    def vertices(self, betas: Float[ndarray, "shape num_betas"]) -> Float[ndarray, "shape vertex 3"]:
        """People from their coefficients."""
        return self.mean + np.einsum("vck,sk->svc", self.directions, betas)

    def fit(self, vertices: Float[ndarray, "shape vertex 3"]) -> Float[ndarray, "shape num_betas"]:
        """Least-squares coefficients of given people."""
        basis = self.directions.reshape(-1, self.directions.shape[-1])
        offsets = (vertices - self.mean).reshape(len(vertices), -1)
        return np.linalg.solve(basis.T @ basis, basis.T @ offsets.T).T


def fit_shape_space(
    vertices: Float[ndarray, "shape vertex 3"],
    faces: Int[ndarray, "face 3"],
    mirror_vertex: Int[ndarray, " vertex"],
    num_betas: int,
) -> ShapeSpace:
    """Area-weighted principal components, symmetrised; the positive end of each has more volume."""
    mean = symmetrised(vertices.mean(axis=0, dtype=np.float64), mirror_vertex)
    root_area = np.sqrt(vertex_areas(mean, faces))[:, None]
    offsets = ((vertices - mean) * root_area).reshape(len(vertices), -1)
    # Fewer people than coordinates: the eigenvectors of the Gram matrix carry the same components.
    eigenvalues, eigenvectors = np.linalg.eigh(offsets @ offsets.T)
    order = np.argsort(eigenvalues)[::-1][:num_betas]
    # A direction times √eigenvalue is the regression of the offsets on unit-variance coefficients.
    betas = eigenvectors[:, order] * np.sqrt(len(vertices))
    directions = np.einsum("svc,sk->vck", vertices - mean, betas) / len(vertices)
    directions = symmetrised(np.moveaxis(directions, -1, 0), mirror_vertex)
    growth = [signed_volume(mean + d, faces) - signed_volume(mean - d, faces) for d in directions]
    directions = directions * np.sign(growth)[:, None, None]
    return ShapeSpace(
        mean=mean,
        directions=np.moveaxis(directions, 0, -1),
        explained_variance_ratio=eigenvalues[order] / eigenvalues.sum(),
    )


def symmetrised(
    points: Float[ndarray, "*batch vertex 3"], mirror_vertex: Int[ndarray, " vertex"]
) -> Float[ndarray, "*batch vertex 3"]:
    """The mean of a shape (or of an offset field) and its mirror image; exactly symmetric."""
    mirrored = points[..., mirror_vertex, :] * np.array([-1.0, 1.0, 1.0])
    return 0.5 * (points + mirrored)


def vertex_areas(
    vertices: Float[ndarray, "vertex 3"], faces: Int[ndarray, "face 3"]
) -> Float[ndarray, " vertex"]:
    """A third of the area of the faces around each vertex, in square metres."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1) / 6.0
    return np.bincount(faces.ravel(), weights=np.repeat(areas, 3), minlength=len(vertices))


def signed_volume(vertices: Float[ndarray, "vertex 3"], faces: Int[ndarray, "face 3"]) -> float:
    """Enclosed volume in cubic metres, positive for outward normals."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((np.cross(a, b) * c).sum() / 6.0)
