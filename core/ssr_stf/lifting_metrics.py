"""Errors of lifted joints, in millimetres, under a protocol.

Shapes: T frames of one sequence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.point_errors import difference_error, mean_point_error, scale_aligned, similarity_aligned
from core.skeleton import H36M_17
from core.ssr_stf.lifting_protocols import AUC_THRESHOLDS_MM, PCK_JOINTS, PCK_THRESHOLD_MM, LiftingProtocol


@dataclass(frozen=True)
class LiftingErrors:
    """Means of one kind of evaluation; NaN where there was nothing to take a mean of.

    Attributes:
        mpjpe_mm: P1, after alignment of the pelvis.
        pa_mpjpe_mm: P2, after rotation, scale and translation.
        n_mpjpe_mm: after pelvis and scale.
        velocity_mm_per_frame: MPJVE, mean distance of the joints' first differences.
        accel_mm_per_s2, accel_mm_per_frame2: of the second ones.
        pck_percent: joints nearer than 150 mm.
        auc_percent: mean of that over thresholds 0, 5 … 150 mm.
        num_frames: evaluated.
    """

    mpjpe_mm: float
    pa_mpjpe_mm: float
    n_mpjpe_mm: float
    velocity_mm_per_frame: float
    accel_mm_per_s2: float
    accel_mm_per_frame2: float
    pck_percent: float
    auc_percent: float
    num_frames: int

    def as_dict(self, protocol: LiftingProtocol) -> dict[str, float | int]:
        """Those that the protocol reports, by name."""
        hidden = () if protocol.pck else ("pck_percent", "auc_percent")
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in hidden}


_NAMES = tuple(field.name for field in fields(LiftingErrors) if field.name != "num_frames")


class LiftingMetrics:
    """Collects sequences. Feed one unbroken piece at a time."""

    def __init__(self, protocol: LiftingProtocol) -> None:
        self.protocol = protocol
        # By action: sums and counts of every error, (2, len(_NAMES)).
        self._sums: dict[str, Tensor] = {}

    def update(
        self,
        predicted_mm: Float[Tensor, "frame 17 3"],
        true_mm: Float[Tensor, "frame 17 3"],
        *,
        action: str,
        fps: float,
        evaluated: Bool[Tensor, "frame"],
    ) -> None:
        """Adds a sequence. Velocities and accelerations count where all their frames are evaluated."""
        predicted_mm, true_mm = (
            joints - joints[:, :1] for joints in (predicted_mm.double(), true_mm.double())
        )
        both = [predicted_mm[evaluated], true_mm[evaluated]]
        velocity = difference_error(predicted_mm, true_mm, order=1)[counted_steps(evaluated)]
        accel = difference_error(predicted_mm, true_mm, order=2)
        accel = accel[evaluated[2:] & evaluated[1:-1] & evaluated[:-2]] if len(accel) else accel
        pck, auc = correct_keypoints_percent(*both)
        values = (
            mean_point_error(*both),
            mean_point_error(similarity_aligned(*both), both[1]) if len(both[0]) else both[0].new_zeros(0),
            mean_point_error(scale_aligned(*both), both[1]),
            velocity,
            accel * fps**2,
            accel,
            pck,
            auc,
        )
        sums = torch.tensor(
            [[float(v.sum()) for v in values], [v.numel() for v in values]], dtype=torch.float64
        )
        self._sums[action] = self._sums.get(action, torch.zeros_like(sums)) + sums

    def errors(self) -> LiftingErrors:
        """Under the protocol's mean."""
        if self.protocol.mean_over == "frames" or not self._sums:
            return _means(sum(self._sums.values(), torch.zeros(2, len(_NAMES), dtype=torch.float64)))
        sums, counts = torch.stack(list(self._sums.values())).unbind(1)  # (action, error)
        # Of what an action has none of, as velocities of single frames, it has no mean. One that is not finite
        # counts, lest a model that diverges be judged by what is left.
        means = torch.where(counts > 0, sums / counts, 0).sum(0) / (counts > 0).sum(0)
        return LiftingErrors(
            **dict(zip(_NAMES, means.tolist(), strict=True)), num_frames=int(counts[:, 0].sum())
        )

    def per_action(self) -> Mapping[str, LiftingErrors]:
        """Each action's own means, by name, in alphabetical order."""
        return {action: _means(self._sums[action]) for action in sorted(self._sums)}


def counted_steps(evaluated: Bool[Tensor, "frame"]) -> Bool[Tensor, "step"]:
    """The steps from each frame to the next at which velocities count: both frames are evaluated."""
    return evaluated[1:] & evaluated[:-1]


def correct_keypoints_percent(
    joints_mm: Float[Tensor, "frame 17 3"], true_mm: Float[Tensor, "frame 17 3"]
) -> tuple[Float[Tensor, "frame"], Float[Tensor, "frame"]]:
    """PCK at 150 mm and its mean over thresholds (AUC) of every frame, per cent, of the 14 joints of the
    official evaluation (Mehta et al., "Monocular 3D Human Pose Estimation In The Wild", 3DV 2017)."""
    joint_ids = [H36M_17.index(name) for name in PCK_JOINTS]
    distances = (joints_mm - true_mm).norm(dim=-1)[:, joint_ids]
    pck = (distances < PCK_THRESHOLD_MM).to(distances).mean(dim=-1)
    thresholds = distances.new_tensor(AUC_THRESHOLDS_MM)
    auc = (distances[..., None] < thresholds).to(distances).mean(dim=(-2, -1))
    return 100 * pck, 100 * auc


def _means(sums: Float[Tensor, "2 error"]) -> LiftingErrors:
    means = (sums[0] / sums[1]).tolist()
    return LiftingErrors(**dict(zip(_NAMES, means, strict=True)), num_frames=int(sums[1, 0]))
