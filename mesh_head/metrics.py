"""Evaluation metrics, in millimetres. Nothing else in the project knows another length than the metre.

Bodies come as `PosedPoints`; `compare` gives the errors of every frame under one protocol; `MeshMetrics` sums
them. Vertices are only ever needed for the frames compared at a time.

Shapes: T frames of one sequence, J joints, V vertices.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from body_models.joint_regressors import JointRegressor
from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody
from core.point_errors import difference_error, mean_point_error, similarity_aligned
from core.skeleton import H36M_17, SMPL_24
from mesh_head.protocols import Protocol, Root

MM_PER_M = 1000.0


@dataclass(frozen=True)
class PosedPoints:
    """All that protocols compare of bodies in some frames, in one frame of reference, metres."""

    joints_m: Float[Tensor, "frame 17 3"]  # H36M_17, regressed from the vertices
    vertices_m: Float[Tensor, "frame vertex 3"]
    smpl_joints_m: Float[Tensor, "frame 24 3"]
    pelvis_of_posed_vertices_m: Float[Tensor, "frame 3"]  # by the neutral body's joint regressor

    def root_m(self, root: Root) -> Float[Tensor, "frame 1 3"]:
        """The point a protocol compares about."""
        match root:
            case "mean_of_hips":
                hips = [H36M_17.index("left_hip"), H36M_17.index("right_hip")]
                return self.joints_m[:, hips].mean(dim=1, keepdim=True)
            case "regressed_pelvis":
                return self.joints_m[:, :1]
            case "smpl_pelvis":
                return self.smpl_joints_m[:, :1]
            case "pelvis_of_posed_vertices":
                return self.pelvis_of_posed_vertices_m[:, None]


class MeasuredBody(nn.Module):
    """A body with all that is read off its vertices."""

    def __init__(self, body: SmplBody, regressor: JointRegressor, neutral: SmplBody) -> None:
        """
        Args:
            regressor: H36M_17 of the body's vertices.
            neutral: whose joint regressor finds the pelvis of posed vertices, for every gender as Pose2Mesh does.
        """
        super().__init__()
        self.body = body
        self.regressor = regressor
        smpl_regressor = torch.from_numpy(neutral.arrays.J_regressor).to(body.v_template)
        self.smpl_regressor = JointRegressor(SMPL_24, smpl_regressor)

    def forward(self, parameters: BodyParameters) -> PosedPoints:
        """Poses the body, for parameters of batch shape (frame,)."""
        mesh = self.body(parameters)
        pelvis_m = self.smpl_regressor(mesh.vertices_m)[:, 0]
        return PosedPoints(self.regressor(mesh.vertices_m), mesh.vertices_m, mesh.joints_m, pelvis_m)


@dataclass(frozen=True)
class FrameErrors:
    """Errors of every frame under one protocol, and the joints it compared, about their root. No vertices."""

    mpjpe_m: Float[Tensor, "frame"]
    pa_mpjpe_m: Float[Tensor, "frame"]
    joints_m: Float[Tensor, "frame joint 3"]
    true_joints_m: Float[Tensor, "frame joint 3"]
    mpve_m: Float[Tensor, "frame"] | None = None  # None: the protocol does not compare vertices

    @staticmethod
    def cat(pieces: Sequence["FrameErrors"]) -> "FrameErrors":
        """Consecutive pieces as one."""
        columns = {
            field.name: [getattr(piece, field.name) for piece in pieces] for field in fields(FrameErrors)
        }
        return FrameErrors(
            **{name: torch.cat(values) for name, values in columns.items() if values[0] is not None}
        )


def compare(protocol: Protocol, predicted: PosedPoints, true: PosedPoints) -> FrameErrors:
    """Errors of every frame; accelerations, which need neighbours, are left to `MeshMetrics`."""
    ids = [protocol.skeleton.index(name) for name in protocol.joints]
    joints_m, true_joints_m = (
        (points.joints_m if protocol.skeleton == H36M_17 else points.smpl_joints_m)[:, ids]
        - points.root_m(protocol.joint_root)
        for points in (predicted, true)
    )
    mpve_m = None
    if protocol.vertex_root is not None:
        difference_m = predicted.vertices_m - true.vertices_m
        if protocol.vertex_root != "unaligned":
            difference_m -= predicted.root_m(protocol.vertex_root) - true.root_m(protocol.vertex_root)
        mpve_m = _mean_length(difference_m)
    return FrameErrors(
        mpjpe_m=mean_point_error(joints_m, true_joints_m),
        pa_mpjpe_m=mean_point_error(similarity_aligned(joints_m, true_joints_m), true_joints_m),
        mpve_m=mpve_m,
        joints_m=joints_m,
        true_joints_m=true_joints_m,
    )


@dataclass(frozen=True, kw_only=True)
class MeshErrors:
    """Means over the frames; of accelerations, over those that have both neighbours.

    What a protocol does not define, or no frame defines, is NaN.
    """

    mpjpe_mm: float
    pa_mpjpe_mm: float
    mpve_mm: float
    accel_mm_per_s2: float
    accel_mm_per_frame2: float
    pck_percent: float
    auc_percent: float
    num_frames: int

    def as_dict(self) -> dict[str, float | int]:
        """What is defined."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if not math.isnan(value)}


class MeshMetrics:
    """The errors of one protocol, summed over sequences and processes. Every frame counts once.

    Sums are in double precision; merged in the same order they are the same bits, wherever each was counted.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.thresholds_mm: list[float] = []
        if protocol.correct is not None:
            first, last = protocol.correct.auc_thresholds_mm
            self.thresholds_mm = [protocol.correct.threshold_mm, *range(first, last + 1)]
        # MPJPE, PA-MPJPE and MPVE over the frames; acceleration errors per s² and per frame².
        self.sums_m = torch.zeros(5, dtype=torch.float64)
        self.num_frames = 0
        self.num_accelerations = 0
        self.num_correct = torch.zeros(len(self.thresholds_mm), dtype=torch.float64)  # within each threshold

    def update(
        self,
        errors: FrameErrors,
        fps: float,
        frame_ids: Int[Tensor, "frame"] | None = None,
        is_counted: Bool[Tensor, "frame"] | None = None,
    ) -> None:
        """Adds the frames of one sequence.

        Args:
            errors: of all its frames, in order.
            fps: of frames whose ids differ by one.
            frame_ids: an acceleration needs three in a row; None: there is no gap.
            is_counted: frames that are left out have no acceleration either; None: all count.

        Raises:
            ValueError: an error is not finite.
        """
        num_frames, device = len(errors.mpjpe_m), errors.mpjpe_m.device
        frame_ids = torch.arange(num_frames, device=device) if frame_ids is None else frame_ids.to(device)
        if is_counted is None:
            is_counted = torch.ones(num_frames, dtype=torch.bool, device=device)
        counted = is_counted.to(device)
        in_a_row = (frame_ids[2:] - frame_ids[:-2] == 2) & counted[2:] & counted[1:-1] & counted[:-2]
        accelerations_m = difference_error(errors.joints_m, errors.true_joints_m, order=2)[in_a_row]
        dropped = self.protocol.dropped_accelerations
        accelerations_m = accelerations_m[dropped : max(len(accelerations_m) - dropped, 0)].double()

        per_frame = [errors.mpjpe_m, errors.pa_mpjpe_m, errors.mpve_m]
        sums_m = [
            counted.new_zeros((), dtype=torch.float64) if values is None else values[counted].double().sum()
            for values in per_frame
        ]
        sums_m += [accelerations_m.sum() * fps**2, accelerations_m.sum()]
        of_sequence = torch.stack(sums_m).cpu()
        if not of_sequence.isfinite().all():
            raise ValueError(
                "The model's predictions are not finite, so they have no errors: its training has diverged; train "
                "it again at a lower schedule.learning_rate and schedule.muon_learning_rate."
            )
        self.sums_m += of_sequence
        self.num_frames += int(counted.sum())
        self.num_accelerations += len(accelerations_m)
        if self.protocol.correct is not None:
            ids = [self.protocol.joints.index(name) for name in self.protocol.correct.joints]
            difference_m = errors.joints_m[counted][:, ids] - errors.true_joints_m[counted][:, ids]
            lengths_mm = difference_m.double().norm(dim=-1).flatten().sort().values * MM_PER_M
            thresholds_mm = lengths_mm.new_tensor(self.thresholds_mm)
            self.num_correct += torch.searchsorted(lengths_mm, thresholds_mm, right=True).cpu()

    def merge(self, other: "MeshMetrics") -> None:
        """Adds what another has counted."""
        self.sums_m += other.sums_m
        self.num_frames += other.num_frames
        self.num_accelerations += other.num_accelerations
        self.num_correct += other.num_correct

    def errors(self) -> MeshErrors:
        """The means of all that was added."""
        mpjpe_mm, pa_mpjpe_mm, mpve_mm = (self.sums_m[:3] * MM_PER_M / self.num_frames).tolist()
        accelerations_mm = (self.sums_m[3:] * MM_PER_M / self.num_accelerations).tolist()
        pck_percent = auc_percent = math.nan
        if self.protocol.correct is not None:
            correct = self.num_correct / (self.num_frames * len(self.protocol.correct.joints))
            pck_percent = 100 * correct[0].item()
            auc_percent = 100 * torch.trapezoid(correct[1:]).item() / (len(correct) - 2)
        return MeshErrors(
            mpjpe_mm=mpjpe_mm,
            pa_mpjpe_mm=pa_mpjpe_mm,
            mpve_mm=math.nan if self.protocol.vertex_root is None else mpve_mm,
            accel_mm_per_s2=accelerations_mm[0],
            accel_mm_per_frame2=accelerations_mm[1],
            pck_percent=pck_percent,
            auc_percent=auc_percent,
            num_frames=self.num_frames,
        )


def _mean_length(vectors: Float[Tensor, "*batch point 3"]) -> Float[Tensor, "*batch"]:
    # For vertices: a reduction over three neighbouring numbers takes twice as long as adding three planes.
    x, y, z = vectors.square().unbind(dim=-1)
    return (x + y + z).sqrt().mean(dim=-1)
