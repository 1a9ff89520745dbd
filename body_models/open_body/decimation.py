"""Left–right symmetric mesh decimation that keeps a subset of the vertices.

Quadric edge collapse (Garland and Heckbert, "Surface simplification using quadric error metrics", SIGGRAPH
1997) restricted to half-edge collapses: a vertex moves onto a neighbour and vanishes, so every attribute of
the mesh (shape directions, skinning weights) is simply indexed. Only the left half is decimated and then
mirrored, which makes the result symmetric by construction.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

# Cost of an edge's length relative to its distance error, both per area: prefers short edges where it is
# flat.
EDGE_LENGTH_COST = 0.003
MIN_NORMAL_COSINE = 0.3
MIN_TRIANGLE_QUALITY = 0.12
MAX_VALENCE = 11


@dataclass(frozen=True, kw_only=True)
class DecimatedMesh:
    """The kept vertices (ids into the input, ascending) and faces that index the kept ones."""

    vertex_ids: Int[ndarray, " kept"]
    faces: Int[ndarray, "kept_face 3"]
    mirror_vertex: Int[ndarray, " kept"]


def decimate_symmetric(
    vertices: Float[ndarray, "vertex 3"],
    faces: Int[ndarray, "face 3"],
    mirror_vertex: Int[ndarray, " vertex"],
    importance: Float[ndarray, " vertex"],
    is_protected: Bool[ndarray, " vertex"],
    max_num_vertices: int,
) -> DecimatedMesh:
    """Collapses edges until at most `max_num_vertices` vertices are left.

    Args:
        vertices: In metres, symmetric under x → −x; the midline's vertices are their own mirror.
        faces: Closed, mirror-symmetric triangles, none of which crosses the midline.
        mirror_vertex: The vertex on the other side.
        importance: Factor on a vertex's error; larger keeps more vertices around it.
        is_protected: Vertices that stay.
        max_num_vertices: Of the whole mesh.
    """
    on_midline = mirror_vertex == np.arange(len(vertices))
    is_left_face = np.where(on_midline[faces], 0.0, vertices[faces][..., 0]).sum(axis=1) > 0
    half = _HalfMesh(
        vertices, faces[is_left_face], on_midline, is_protected, _quadrics(vertices, faces, importance)
    )
    half.collapse_until(max_num_vertices)

    half_faces = half.faces()
    all_faces = np.concatenate([half_faces, mirror_vertex[half_faces][:, ::-1]])
    vertex_ids, flat = np.unique(all_faces, return_inverse=True)
    new_id = np.full(len(vertices), -1)
    new_id[vertex_ids] = np.arange(len(vertex_ids))
    return DecimatedMesh(
        vertex_ids=vertex_ids,
        faces=flat.reshape(-1, 3),
        mirror_vertex=new_id[mirror_vertex[vertex_ids]],
    )


def _quadrics(
    vertices: Float[ndarray, "vertex 3"],
    faces: Int[ndarray, "face 3"],
    importance: Float[ndarray, " vertex"],
) -> Float[ndarray, "vertex 5 5"]:
    """Per vertex: the summed plane quadrics (4×4) of its faces times their area, and that area at [4, 4]."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    double_area = np.linalg.norm(normals, axis=1)
    normals = normals / np.maximum(double_area, 1e-20)[:, None]
    planes = np.concatenate([normals, -(normals * corners[:, 0]).sum(1, keepdims=True)], axis=1)
    area_share = double_area / 6.0
    face_quadrics = np.zeros((len(faces), 5, 5))
    face_quadrics[:, :4, :4] = planes[:, :, None] * planes[:, None, :] * area_share[:, None, None]
    face_quadrics[:, 4, 4] = area_share
    quadrics = np.zeros((len(vertices), 5, 5))
    for corner in range(3):
        np.add.at(quadrics, faces[:, corner], face_quadrics)
    return quadrics * importance[:, None, None]


class _HalfMesh:
    """The left half with its midline as a boundary; collapsing keeps its double a closed manifold."""

    def __init__(
        self,
        vertices: Float[ndarray, "vertex 3"],
        faces: Int[ndarray, "half_face 3"],
        on_midline: Bool[ndarray, " vertex"],
        is_protected: Bool[ndarray, " vertex"],
        quadrics: Float[ndarray, "vertex 5 5"],
    ) -> None:
        self._points = [tuple(point) for point in vertices.astype(np.float64).tolist()]
        self._vertices = vertices.astype(np.float64)
        self._on_midline = on_midline
        self._is_protected = is_protected
        self._quadrics = quadrics
        self._face_corners: dict[int, tuple[int, int, int]] = {
            index: (int(a), int(b), int(c)) for index, (a, b, c) in enumerate(faces)
        }
        self._faces_at: dict[int, set[int]] = {int(vertex): set() for vertex in np.unique(faces)}
        for index, corners in self._face_corners.items():
            for vertex in corners:
                self._faces_at[vertex].add(index)
        self._version = dict.fromkeys(self._faces_at, 0)

    def faces(self) -> Int[ndarray, "half_face 3"]:
        return np.array([self._face_corners[index] for index in sorted(self._face_corners)])

    def collapse_until(self, max_num_vertices: int) -> None:
        num_vertices = sum(1 if self._on_midline[vertex] else 2 for vertex in self._faces_at)
        queue: list[tuple[float, int, int, int, int]] = []
        for vertex in sorted(self._faces_at):
            for neighbour in sorted(self._neighbours(vertex)):
                self._push(queue, vertex, neighbour)
        while num_vertices > max_num_vertices and queue:
            _, removed, kept, removed_version, kept_version = heapq.heappop(queue)
            if (
                self._version.get(removed) != removed_version
                or self._version.get(kept) != kept_version
                or not self._may_collapse(removed, kept)
            ):
                continue
            num_vertices -= 1 if self._on_midline[removed] else 2
            self._collapse(removed, kept)
            # The quadric of `kept` and the rings of its neighbours changed, so their edges are ranked anew.
            ring = sorted(self._neighbours(kept))
            for vertex in (kept, *ring):
                self._version[vertex] += 1
            for vertex in (kept, *ring):
                for neighbour in sorted(self._neighbours(vertex)):
                    self._push(queue, vertex, neighbour)
                    self._push(queue, neighbour, vertex)

    def _neighbours(self, vertex: int) -> set[int]:
        ring = {corner for face in self._faces_at[vertex] for corner in self._face_corners[face]}
        ring.discard(vertex)
        return ring

    def _push(self, queue: list[tuple[float, int, int, int, int]], removed: int, kept: int) -> None:
        if self._is_protected[removed] or (self._on_midline[removed] and not self._on_midline[kept]):
            return
        point = np.append(self._vertices[kept], 1.0)
        quadric = self._quadrics[removed] + self._quadrics[kept]
        length = self._vertices[kept] - self._vertices[removed]
        cost = point @ quadric[:4, :4] @ point
        cost += EDGE_LENGTH_COST * self._quadrics[removed][4, 4] * (length @ length)
        entry = (float(cost), removed, kept, self._version[removed], self._version[kept])
        heapq.heappush(queue, entry)

    def _may_collapse(self, removed: int, kept: int) -> bool:
        shared_faces = self._faces_at[removed] & self._faces_at[kept]
        if not shared_faces:
            return False
        removed_ring, kept_ring = self._neighbours(removed), self._neighbours(kept)
        opposite = {c for face in shared_faces for c in self._face_corners[face]} - {removed, kept}
        if (removed_ring & kept_ring) != opposite:
            return False
        if len(removed_ring | kept_ring) - 2 > MAX_VALENCE:
            return False
        is_boundary_edge = len(shared_faces) == 1
        if self._on_midline[removed] and not is_boundary_edge:
            return False
        if self._on_midline[kept] and not self._on_midline[removed]:
            # Another midline neighbour would get an inner edge to `kept`, which its mirror image doubles.
            chords = {vertex for vertex in removed_ring if self._on_midline[vertex]} - {kept}
            if not chords <= opposite:
                return False
        return self._keeps_shape(removed, kept, shared_faces)

    def _keeps_shape(self, removed: int, kept: int, shared_faces: set[int]) -> bool:
        for face in self._faces_at[removed] - shared_faces:
            before = self._face_corners[face]
            after = tuple(kept if corner == removed else corner for corner in before)
            if all(self._on_midline[corner] for corner in after):
                return False
            old_normal, _ = self._normal_and_quality(before)
            new_normal, quality = self._normal_and_quality(after)
            cosine = sum(a * b for a, b in zip(old_normal, new_normal, strict=True))
            if cosine < MIN_NORMAL_COSINE or quality < MIN_TRIANGLE_QUALITY:
                return False
        return True

    def _normal_and_quality(self, corners: tuple[int, ...]) -> tuple[tuple[float, float, float], float]:
        """Unit normal, and 4√3·area / Σ edge² (1 for an equilateral triangle)."""
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (self._points[corner] for corner in corners)
        ux, uy, uz = bx - ax, by - ay, bz - az
        vx, vy, vz = cx - ax, cy - ay, cz - az
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        length = (nx * nx + ny * ny + nz * nz) ** 0.5 + 1e-20
        wx, wy, wz = cx - bx, cy - by, cz - bz
        squares = ux * ux + uy * uy + uz * uz + vx * vx + vy * vy + vz * vz + wx * wx + wy * wy + wz * wz
        return (nx / length, ny / length, nz / length), 2.0 * 3.0**0.5 * length / (squares + 1e-20)

    def _collapse(self, removed: int, kept: int) -> None:
        for face in self._faces_at.pop(removed):
            corners = self._face_corners[face]
            if kept in corners:
                del self._face_corners[face]
                for corner in corners:
                    if corner != removed:
                        self._faces_at[corner].discard(face)
            else:
                a, b, c = (kept if corner == removed else corner for corner in corners)
                self._face_corners[face] = (a, b, c)
                self._faces_at[kept].add(face)
        self._quadrics[kept] += self._quadrics[removed]
        del self._version[removed]
