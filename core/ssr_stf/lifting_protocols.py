"""What a lifting number means: declared protocols, as data."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from core.datasets.human36m import BLOCK_LISTED_SEQUENCES
from core.settings import require_choice
from core.ssr_stf.lifting import Windows

PCK_THRESHOLD_MM = 150.0
AUC_THRESHOLDS_MM = tuple(float(threshold) for threshold in range(0, 151, 5))
# The official evaluation of MPI-INF-3DHP (mpii_get_pck_auc_joint_groups.m) counts these 14: its head top is
# H36M_17's head, its neck H36M_17's thorax; pelvis, spine and head centre are left out.
_PCK_SIDES = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
PCK_JOINTS = ("head", "thorax", *(f"{side}_{name}" for side in ("left", "right") for name in _PCK_SIDES))


@dataclass(frozen=True, kw_only=True)
class LiftingProtocol:
    """How errors are taken and averaged. Joints are always relative to the pelvis, and all 17 count.

    Attributes:
        name: by which it is chosen and reported.
        mean_over: "frames": every frame counts once; "actions": the mean over actions of each action's mean.
        windows: how a sequence is cut; see `core.ssr_stf.lifting.lift_sequence`.
        left_out: sequences whose names begin so are not evaluated.
        pck: whether PCK and AUC are reported.
        whole_tiles_only: whether windows side by side drop the frames after a sequence's last whole one.
        source: whose evaluation this is.
    """

    name: str
    mean_over: Literal["frames", "actions"]
    windows: Windows
    left_out: tuple[str, ...]
    pck: bool
    whole_tiles_only: bool = False
    source: str

    def evaluates(self, sequence: str) -> bool:
        """Whether the sequence of that name counts."""
        return not (self.left_out and sequence.startswith(self.left_out))

    def counted_frames(self, num_frames: int, window_frames: int) -> int:
        """How many of a sequence's frames count, from its first on. One shorter than a window counts as it is."""
        drops = self.whole_tiles_only and self.windows == "tiled" and num_frames > window_frames
        return num_frames - num_frames % window_frames if drops else num_frames

    def with_windows(self, windows: str) -> "LiftingProtocol":
        """The same with its sequences cut otherwise; "auto" keeps the protocol's way.

        Raises:
            ValueError: there is no such way.
        """
        require_choice("windows", windows, ("auto", *get_args(Windows)))
        if windows == "auto":
            return self
        return replace(self, windows=windows)  # type: ignore[arg-type]

    def describe(self) -> str:
        """One sentence for beside the numbers."""
        windows = {"overlapped": "half-overlapped", "tiled": "tiled", "centre": "centre-frame"}[self.windows]
        windows = f"whole {windows}" if self.whole_tiles_only and self.windows == "tiled" else windows
        mean = "every frame counts once" if self.mean_over == "frames" else "mean of the actions' means"
        without = f"; without {', '.join(self.left_out)}" if self.left_out else ""
        return f"{self.name}: pelvis-aligned, 17 joints, {windows} windows, {mean}{without} ({self.source})."


_HUMAN36M = LiftingProtocol(
    name="human36m",
    mean_over="actions",
    windows="overlapped",
    left_out=BLOCK_LISTED_SEQUENCES,
    pck=False,
    whole_tiles_only=True,
    source="MotionBERT, MotionAGFormer; their windows are tiled, and what no whole one covers does not count",
)
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        _HUMAN36M,
        replace(
            _HUMAN36M,
            name="human36m_videopose3d",
            left_out=(),
            whole_tiles_only=False,
            source="VideoPose3D, whose windows are centre-frame",
        ),
        LiftingProtocol(
            name="mpi_inf_3dhp",
            mean_over="frames",
            windows="centre",
            left_out=(),
            pck=True,
            source="P-STMO, MotionAGFormer: valid frames; PCK and AUC of 14 joints",
        ),
        LiftingProtocol(
            name="motion",
            mean_over="frames",
            windows="overlapped",
            left_out=(),
            pck=False,
            source="motion before virtual cameras",
        ),
    )
}


def find_lifting_protocol(name: str) -> LiftingProtocol:
    """A protocol by its name; ValueError lists them."""
    if name not in PROTOCOLS:
        raise ValueError(f"There is no lifting protocol {name!r}; choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
