"""Lifted joints against true ones, sequence by sequence."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from core.point_errors import difference_error
from core.ssr_stf.lifting import InputNormalisation, lift_sequence, window_borders
from core.ssr_stf.lifting_data import LiftingSource, LiftingTestSequence
from core.ssr_stf.lifting_metrics import LiftingErrors, LiftingMetrics, counted_steps
from core.ssr_stf.lifting_protocols import LiftingProtocol
from core.weights import ClipFormat


@dataclass(frozen=True, kw_only=True)
class Lifter:
    """A model and how it is run.

    Attributes:
        model: normalised keypoints (B, T, 17, 3) to joints relative to the pelvis.
        normalisation: what the model takes for its input.
        window_frames: clip length it is run with.
        mirror_test: also lift the mirror image, and average both.
        device: where.
    """

    model: nn.Module
    normalisation: InputNormalisation
    window_frames: int
    mirror_test: bool
    device: torch.device

    @classmethod
    def for_weights(
        cls,
        model: nn.Module,
        clip: ClipFormat,
        source: LiftingSource,
        mirror_test: bool,
        device: torch.device,
    ) -> "Lifter":
        """A trained model, on a source of data.

        Raises:
            ValueError: it was trained on another kind of input, or in another unit, than the source gives.
        """
        if clip["normalisation"] != source.normalisation:
            raise ValueError(
                f"The weights were trained on keypoints normalised to the {clip['normalisation']}, and these data "
                f"come normalised to the {source.normalisation}; use weights trained on data of this kind."
            )
        unit = clip.get("unit", "metre")
        if unit != source.unit:
            raise ValueError(
                f"The weights give joints in the unit {unit}, and the truth of these data is in the unit "
                f"{source.unit}; use weights trained on data prepared likewise (tools/prepare_data.py dataset=…)."
            )
        return cls(
            model=model,
            normalisation=source.normalisation,
            window_frames=int(clip["num_frames"]),
            mirror_test=mirror_test,
            device=device,
        )

    def joints_mm(
        self,
        sequence: LiftingTestSequence,
        protocol: LiftingProtocol,
        *,
        wanted: Bool[np.ndarray, "frame"] | None = None,
    ) -> Float[Tensor, "frame 17 3"]:
        """Relative to the pelvis, in the camera's axes.

        Args:
            wanted: other frames may be left out, as NaN, where that saves time; None: all are wanted.
        """
        joints = lift_sequence(
            self.model,
            _tensor(sequence.keypoints_px, self.device),
            _tensor(sequence.confidence, self.device),
            normalisation=self.normalisation,
            image_size=sequence.image_size,
            K=None if sequence.K is None else _tensor(sequence.K, self.device),
            window_frames=self.window_frames,
            windows=protocol.windows,
            mirror_test=self.mirror_test,
            wanted=None if wanted is None else torch.from_numpy(np.array(wanted)),
        )
        return joints * _tensor(sequence.mm_per_unit, self.device)[:, None, None]


@dataclass(frozen=True)
class SeamErrors:
    """Mean velocity error at the steps between frames where a window begins or ends, and at all others.

    Equal where windows are blended without a seam. NaN where there is no such step.
    """

    border_mm_per_frame: float
    elsewhere_mm_per_frame: float


@dataclass(frozen=True)
class LiftingResult:
    """Errors under one protocol: in total, per action and per sequence.

    Attributes:
        seams: None where no window begins or ends within a sequence.
    """

    protocol: LiftingProtocol
    seams: SeamErrors | None
    total: LiftingErrors
    per_action: dict[str, LiftingErrors]
    per_sequence: dict[str, LiftingErrors]

    def require_errors(self) -> None:
        """ValueError if the joints of a sequence are not finite; in a table of many models it is a dash."""
        for name, errors in self.per_sequence.items():
            if errors.num_frames and not np.isfinite(errors.mpjpe_mm):
                raise ValueError(
                    f"The model's joints of {name} are not finite, so they have no errors: its training has "
                    "diverged, or these keypoints hold numbers that are none."
                )

    def report(self) -> dict[str, Any]:
        """What is written as JSON."""
        return {
            "protocol": self.protocol.name,
            "definition": self.protocol.describe(),
            "total": self.total.as_dict(self.protocol),
            "seams": None if self.seams is None else asdict(self.seams),
            "actions": {name: errors.as_dict(self.protocol) for name, errors in self.per_action.items()},
            "sequences": {name: errors.as_dict(self.protocol) for name, errors in self.per_sequence.items()},
        }


def evaluate_lifting(
    lifter: Lifter,
    sequences: Sequence[LiftingTestSequence],
    protocol: LiftingProtocol,
    on_sequence_done: Callable[[], None] = lambda: None,
) -> LiftingResult:
    """Errors of the lifter on the sequences; those that the protocol leaves out are left out.

    Raises:
        ValueError: no sequence is left, or no frame.
    """
    counted_sequences(sequences, protocol)
    total = LiftingMetrics(protocol)
    by_name: dict[str, LiftingMetrics] = {}
    velocity_errors: list[Tensor] = []
    is_border: list[Tensor] = []
    for sequence in sequences:
        if protocol.evaluates(sequence.name):
            wanted = np.array(sequence.evaluated)
            wanted[protocol.counted_frames(len(wanted), lifter.window_frames) :] = False
            predicted_mm = lifter.joints_mm(sequence, protocol, wanted=wanted).cpu()
            true_mm = _tensor(sequence.true_joints_mm, torch.device("cpu"))
            evaluated = torch.from_numpy(wanted)
            for metrics in (total, by_name.setdefault(sequence.name, LiftingMetrics(protocol))):
                metrics.update(
                    predicted_mm, true_mm, action=sequence.action, fps=sequence.fps, evaluated=evaluated
                )
            counted = counted_steps(evaluated)
            from_pelvis = [joints - joints[:, :1] for joints in (predicted_mm, true_mm)]
            velocity_errors.append(difference_error(*from_pelvis, order=1)[counted])
            borders = window_borders(len(evaluated), lifter.window_frames, protocol.windows)
            is_border.append(borders[counted])
        on_sequence_done()
    return LiftingResult(
        protocol,
        _seam_errors(torch.cat(velocity_errors), torch.cat(is_border)),
        total.errors(),
        dict(total.per_action()),
        {name: metrics.errors() for name, metrics in by_name.items()},
    )


def counted_sequences(
    sequences: Sequence[LiftingTestSequence], protocol: LiftingProtocol
) -> list[LiftingTestSequence]:
    """The sequences that a protocol evaluates and that have a frame to be counted.

    Raises:
        ValueError: There is none.
    """
    counted = [sequence for sequence in sequences if protocol.evaluates(sequence.name)]
    if not counted:
        raise ValueError(f"Protocol {protocol.name} leaves out all {len(sequences)} sequences.")
    with_frames = [sequence for sequence in counted if np.any(sequence.evaluated)]
    if not with_frames:
        raise ValueError(
            f"No frame of the {len(counted)} sequences counts: the data call none of them valid."
        )
    return with_frames


def _seam_errors(
    velocity_error_mm: Float[Tensor, "step"], is_border: Bool[Tensor, "step"]
) -> SeamErrors | None:
    if not is_border.any():
        return None
    return SeamErrors(
        float(velocity_error_mm[is_border].double().mean()),
        float(velocity_error_mm[~is_border].double().mean()),
    )


def frame_rate_remark(clip: ClipFormat, sequences: Sequence[LiftingTestSequence]) -> str | None:
    """What to know where data have another frame rate than the clips that weights were trained on; else None."""
    trained, rates = float(clip["fps"]), sorted({sequence.fps for sequence in sequences})
    others = [rate for rate in rates if abs(rate - trained) > 0.01 * trained]
    if not others:
        return None
    return (
        f"The weights were trained at {trained:g} frames per second, and these data have "
        f"{', '.join(f'{rate:g}' for rate in others)}: how fast people move looks wrong to them."
    )


def _tensor(array: np.ndarray, device: torch.device) -> Tensor:
    # A copy: memory-mapped arrays are read-only, which torch warns of.
    return torch.from_numpy(np.array(array, np.float32)).to(device)
