"""Evaluation metrics, in millimetres. Nothing else in the project knows another length than the metre.

Shapes: T frames of one sequence, J joints, V vertices.
"""

from dataclasses import dataclass, fields

import roma
import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric

from core.skeleton import H36M_17
from mesh_head.protocols import Protocol, Root

MM_PER_M = 1000.0


@dataclass(frozen=True)
class PosedPoints:
    """A sequence's points in one frame of reference, metres."""

    joints_m: Float[Tensor, "frame 17 3"]  # H36M_17, regressed from the vertices
    vertices_m: Float[Tensor, "frame vertex 3"]

    def root_m(self, root: Root) -> Float[Tensor, "frame 1 3"]:
        """The point a protocol compares about."""
        if root == "regressed_pelvis":
            return self.joints_m[:, :1]
        hips = [H36M_17.index("left_hip"), H36M_17.index("right_hip")]
        return self.joints_m[:, hips].mean(dim=1, keepdim=True)


@dataclass(frozen=True)
class MeshErrors:
    """Means over the frames; of accelerations, over those that have both neighbours (NaN if there is none)."""

    mpjpe_mm: float
    pa_mpjpe_mm: float
    mpve_mm: float
    accel_mm_per_s2: float
    accel_mm_per_frame2: float
    num_frames: int

    def as_dict(self) -> dict[str, float | int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


_ERROR_NAMES = tuple(field.name for field in fields(MeshErrors) if field.name != "num_frames")


class MeshMetrics(Metric):
    """MPJPE, PA-MPJPE, MPVE and acceleration error under one protocol, summed over sequences and processes.

    Every frame counts once, whatever sequence it is from. Feed one unbroken piece of a sequence at a time.
    """

    full_state_update = False
    sums: Tensor
    num_frames: Tensor
    num_accelerations: Tensor

    def __init__(self, protocol: Protocol) -> None:
        super().__init__()
        self.protocol = protocol
        self.joint_ids = [H36M_17.index(name) for name in protocol.joints]
        self.add_state("sums", torch.zeros(5, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("num_frames", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("num_accelerations", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, predicted: PosedPoints, true: PosedPoints, fps: float) -> None:
        """Adds the frames of one sequence."""
        protocol = self.protocol
        joints_m, true_joints_m = (
            (points.joints_m - points.root_m(protocol.joint_root))[:, self.joint_ids]
            for points in (predicted, true)
        )
        vertices_m, true_vertices_m = (
            points.vertices_m - points.root_m(protocol.vertex_root) for points in (predicted, true)
        )
        accelerations = acceleration_error_m(joints_m, true_joints_m)
        sums_m = torch.stack(
            [
                mean_point_error_m(joints_m, true_joints_m).double().sum(),
                mean_point_error_m(similarity_aligned(joints_m, true_joints_m), true_joints_m).double().sum(),
                mean_point_error_m(vertices_m, true_vertices_m).double().sum(),
                accelerations.double().sum() * fps**2,
                accelerations.double().sum(),
            ]
        )
        self.sums += sums_m * MM_PER_M
        self.num_frames += len(joints_m)
        self.num_accelerations += len(accelerations)

    def compute(self) -> dict[str, Tensor]:
        """Means by name; `errors` gives the same as plain numbers."""
        means = torch.cat([self.sums[:3] / self.num_frames, self.sums[3:] / self.num_accelerations])
        return dict(zip(_ERROR_NAMES, means, strict=True)) | {"num_frames": self.num_frames}

    def errors(self) -> MeshErrors:
        """The means, over all processes."""
        values = self.compute()
        return MeshErrors(
            **{name: values[name].item() for name in _ERROR_NAMES}, num_frames=int(values["num_frames"])
        )


def mean_point_error_m(
    points_m: Float[Tensor, "*batch point 3"], true_points_m: Float[Tensor, "*batch point 3"]
) -> Float[Tensor, "*batch"]:
    """Mean Euclidean distance over the points."""
    return (points_m - true_points_m).norm(dim=-1).mean(dim=-1)


def similarity_aligned(
    points_m: Float[Tensor, "frame point 3"], true_points_m: Float[Tensor, "frame point 3"]
) -> Float[Tensor, "frame point 3"]:
    """The points after the rotation, scale and translation, per frame, that bring them nearest to the true ones.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991;
    never a reflection. In double precision inside.
    """
    rotmat, translation_m, scale = roma.rigid_points_registration(
        points_m.double(), true_points_m.double(), compute_scaling=True
    )
    turned = scale[:, None, None] * points_m.double() @ rotmat.transpose(-1, -2)
    return (turned + translation_m[:, None]).to(points_m.dtype)


def acceleration_error_m(
    joints_m: Float[Tensor, "frame joint 3"], true_joints_m: Float[Tensor, "frame joint 3"]
) -> Float[Tensor, "inner_frame"]:
    """Mean distance between second differences, per frame²; two entries fewer than frames (none below three)."""
    if len(joints_m) < 3:
        return joints_m.new_zeros(0)
    return mean_point_error_m(joints_m.diff(n=2, dim=0), true_joints_m.diff(n=2, dim=0))
