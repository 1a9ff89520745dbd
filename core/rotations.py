"""Rotations under the names the project uses everywhere: `rotvec` (axis times angle, radians), `rotmat`
(3×3, acting on column vectors) and `rot6d`. Every function takes any batch shape and keeps gradients finite.

The conversions with a branch or a singular-value decomposition inside are roma's (https://github.com/naver/roma).
roma is imported where it is used: it loads torch's compiler, which takes longer than everything else here.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

# Below this length a 6D column carries no direction; dividing by it keeps the gradient finite.
_MIN_COLUMN_LENGTH = 1e-8
_DECOMPOSED_AT_ONCE = 65_536
_AVERAGED_AT_ONCE = 16_384


def rotvec_to_rotmat(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rodrigues' formula, R = I + sin θ/θ [r]ₓ + (1 − cos θ)/θ² [r]ₓ².

    Both factors are written with sinc (1 − cos θ = 2 sin² θ/2), so that no small-angle branch is needed.
    """
    angle = torch.linalg.vector_norm(rotvec, dim=-1)[..., None, None]
    cross_matrix = _cross_matrix(rotvec)
    sin_over_angle = torch.sinc(angle / torch.pi)
    versine_over_angle_squared = 0.5 * torch.sinc(angle / (2 * torch.pi)).square()
    identity = torch.eye(3, dtype=rotvec.dtype, device=rotvec.device)
    return (
        identity + sin_over_angle * cross_matrix + versine_over_angle_squared * (cross_matrix @ cross_matrix)
    )


def rotmat_to_rotvec(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """The rotation vector of length at most π."""
    import roma

    rotvec: Tensor = roma.rotmat_to_rotvec(rotmat)
    return rotvec


def rotmat_to_quaternion(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """The unit quaternion (x, y, z, w), glTF's order; of q and -q, which are the same rotation, either."""
    import roma

    quaternion: Tensor = roma.rotmat_to_unitquat(rotmat)
    return quaternion


def rotmat_to_euler_zxy(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Angles (z, x, y) in radians with R = R_z(z) R_x(x) R_y(y), the usual ones of BVH files.

    |x| is at most π/2; there only a sum or difference of z and y is determined, and y is 0.
    """
    import roma

    angles: Tensor = roma.rotmat_to_euler("ZXY", rotmat)
    return angles


def rotmat_along_chain(
    rotmat: Float[Tensor, "*batch joint 3 3"], parents: Sequence[int]
) -> Float[Tensor, "*batch joint 3 3"]:
    """Rotations relative to their parents, to rotations in the frame that the root's is in.

    Args:
        parents: index of each joint's parent, below its own; the root comes first.
    """
    chained = [rotmat[..., 0, :, :]]
    for joint, parent in enumerate(parents[1:], start=1):
        chained.append(chained[parent] @ rotmat[..., joint, :, :])
    return torch.stack(chained, dim=-3)


def rotmat_from_parent(
    rotmat: Float[Tensor, "*batch joint 3 3"], parents: Sequence[int]
) -> Float[Tensor, "*batch joint 3 3"]:
    """The inverse of `rotmat_along_chain`: rotations in one frame, to rotations relative to their parents."""
    of_parent = rotmat[..., list(parents[1:]), :, :]
    body = of_parent.transpose(-1, -2) @ rotmat[..., 1:, :, :]
    return torch.cat([rotmat[..., :1, :, :], body], dim=-3)


def rotmat_to_rot6d(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """The project's one 6D layout: the first two columns of R, one after the other, [R[:, 0], R[:, 1]].

    This is the layout of 4D-Humans. SPIN and MotionBERT interleave the two columns; PyTorch3D takes two rows.
    The representation: Zhou et al., "On the Continuity of Rotation Representations in Neural Networks", 2019.
    """
    return torch.cat([rotmat[..., :, 0], rotmat[..., :, 1]], dim=-1)


def rot6d_to_rotmat(rot6d: Float[Tensor, "*batch 6"]) -> Float[Tensor, "*batch 3 3"]:
    """Gram-Schmidt on the two columns (layout: see `rotmat_to_rot6d`), which need not be unit or orthogonal.

    Two parallel columns, or a zero one, have no rotation; the result is then finite but not a rotation.
    """
    import roma

    two_columns = torch.stack([rot6d[..., :3], rot6d[..., 3:]], dim=-1)
    rotmat: Tensor = roma.special_gramschmidt(two_columns, epsilon=_MIN_COLUMN_LENGTH)
    return rotmat


def mirror_rotvec(rotvec: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """The rotation seen in a mirror that swaps left and right (x → −x); see `mirror_rotmat`."""
    return rotvec * rotvec.new_tensor([1.0, -1.0, -1.0])


def mirror_rotmat(rotmat: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """S R S with S = diag(−1, 1, 1): the rotation seen in a mirror that swaps left and right (x → −x).

    Mirroring a pose means this on every joint, and swapping left and right joints.
    """
    return rotmat * rotmat.new_tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])


def geodesic_angle(
    rotmat_a: Float[Tensor, "*#batch 3 3"], rotmat_b: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """The angle in radians, within [0, π], of the rotation that takes a to b.

    atan2 of its sine and cosine: unlike acos of the trace, this is accurate at 0 and π, where its gradient
    stays finite too.
    """
    relative = rotmat_a.transpose(-1, -2) @ rotmat_b
    antisymmetric = relative - relative.transpose(-1, -2)
    twice_sine_axis = torch.stack(
        [antisymmetric[..., 2, 1], antisymmetric[..., 0, 2], antisymmetric[..., 1, 0]], dim=-1
    )
    twice_sine = torch.linalg.vector_norm(twice_sine_axis, dim=-1)
    twice_cosine = relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1
    return torch.atan2(twice_sine, twice_cosine)


def chordal_mean(
    rotmat: Float[Tensor, "*batch 3 3"], dim: int, weights: Float[Tensor, "*batch"] | None = None
) -> Float[Tensor, "*reduced 3 3"]:
    """The rotation with the least sum of squared Frobenius distances to those along a batch dimension.

    It is the rotation nearest to their arithmetic mean (Hartley et al., "Rotation Averaging", 2013).

    Args:
        dim: a dimension of the batch shape; negative values count from its end, so −1 is the one before 3×3.
        weights: non-negative, one per rotation; they need not sum to one.
    """
    num_batch_dims = rotmat.ndim - 2
    assert -num_batch_dims <= dim < num_batch_dims, "dim must name a dimension of the batch shape"
    matrix_dim = dim % num_batch_dims
    weighted = rotmat if weights is None else rotmat * weights[..., None, None]
    # The nearest rotation does not depend on the matrix's scale, so a sum will do for a mean.
    return nearest_rotation(weighted.sum(dim=matrix_dim))


def mean_rotmat(rotvec: Float[Tensor, "frame *rest 3"]) -> Float[Tensor, "*rest 3 3"]:
    """Chordal mean over all frames, in the memory of some of them: a data set has millions."""
    sums = [rotvec_to_rotmat(some.double()).sum(dim=0) for some in rotvec.split(_AVERAGED_AT_ONCE)]
    return nearest_rotation(torch.stack(sums).sum(dim=0)).to(rotvec.dtype)


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation at the least Frobenius distance from each matrix (special orthogonal Procrustes)."""
    import roma

    # The decompositions take forty times the memory of the matrices.
    parts = matrix.reshape(-1, 3, 3).split(_DECOMPOSED_AT_ONCE)
    rotmat: Tensor = torch.cat([roma.special_procrustes(part) for part in parts])
    return rotmat.view(matrix.shape)


def _cross_matrix(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """[v]ₓ, with [v]ₓ u = v × u."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
