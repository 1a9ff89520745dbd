"""Turns perfect projected joints into what a 2D detector would have reported.

Calibrated against AlphaPose, OpenPose and HRNet tracks of real people: docs/keypoints.md has the figures and
how they were measured. Lengths are relative to the person's torso (pelvis to thorax) as seen in the image.

Shapes: clip B, frame T, joint J = 17 of `H36M_17`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.settings import require_number, require_range
from core.skeleton import H36M_17

# Per joint: standard deviation of the error relative to a hip's, how readily the detector gets into trouble
# there, and the torso lengths (up, sideways, forwards) by which detectors disagree where the joint is.
_JOINT_TRAITS: dict[str, tuple[float, float, tuple[float, float, float]]] = {
    "pelvis": (0.9, 0.5, (0.04, 0.01, 0.03)),
    "hip": (1.0, 0.7, (0.04, 0.05, 0.03)),
    "knee": (1.15, 1.0, (0.03, 0.02, 0.02)),
    "ankle": (1.05, 1.3, (0.03, 0.02, 0.02)),
    "spine": (0.9, 0.5, (0.04, 0.01, 0.05)),
    "thorax": (0.9, 0.6, (0.07, 0.01, 0.04)),
    "nose": (0.9, 0.8, (0.05, 0.02, 0.05)),
    "head": (1.0, 0.8, (0.07, 0.02, 0.05)),
    "shoulder": (1.0, 0.8, (0.04, 0.04, 0.03)),
    "elbow": (1.2, 1.2, (0.02, 0.02, 0.02)),
    "wrist": (1.4, 1.5, (0.02, 0.02, 0.02)),
}
_TRAITS = tuple(_JOINT_TRAITS[name.split("_")[-1]] for name in H36M_17.joint_names)

# Body parts that hide joints: (joint, joint, radius in metres).
_CAPSULES = (
    ("left_hip", "left_knee", 0.07),
    ("left_knee", "left_ankle", 0.05),
    ("right_hip", "right_knee", 0.07),
    ("right_knee", "right_ankle", 0.05),
    ("left_shoulder", "left_elbow", 0.05),
    ("left_elbow", "left_wrist", 0.04),
    ("right_shoulder", "right_elbow", 0.05),
    ("right_elbow", "right_wrist", 0.04),
    ("left_hip", "left_shoulder", 0.09),
    ("right_hip", "right_shoulder", 0.09),
    ("pelvis", "thorax", 0.10),
    ("thorax", "head", 0.08),
)
# Limbs that detectors confuse with those of the other side, as wholes.
_CONFUSED_LIMBS = (
    ("hip", "knee", "ankle"),
    ("knee", "ankle"),
    ("shoulder", "elbow", "wrist"),
    ("elbow", "wrist"),
)


class DetectedKeypoints(NamedTuple):
    """Keypoints as a detector would report them; missed ones have confidence 0 and lie at (0, 0)."""

    keypoints_px: Float[Tensor, "clip frame joint 2"]
    confidence: Float[Tensor, "clip frame joint"]


@dataclass(frozen=True, kw_only=True)
class DetectorNoise:
    """Jitter, drift, occlusion, left–right confusion, outliers, losses, and confidences that tell of them.

    At the root of it is the *trouble* that a detector has with a joint in a frame: it varies slowly, has a
    heavy tail, and grows with occlusion. Error grows with trouble, and confidence falls, in the proportion
    seen in real files. Every clip draws its own severity, base confidence and kind of detector.

    Attributes:
        severity: (least, greatest), log-uniform per clip; multiplies errors and rates.
        jitter_std: White error of a hip in an untroubled frame, torso lengths.
        drift_std: The same for the slowly varying error.
        drift_correlation: How slowly it varies: the double pole of a second-order autoregression.
        trouble_median: Median trouble of an average joint. Trouble is the fall of log confidence.
        trouble_spread: Standard deviation of log trouble: the weight of the tail.
        trouble_correlation: Correlation of log trouble between neighbouring frames.
        error_per_trouble: Error grows by this many times itself per unit of trouble.
        occlusion_trouble: Greatest trouble of a joint hidden by another body part; uniform per clip from 0.
        definition_scale: Multiplies the table of disagreements about where joints are.
        confidence_range: Confidence of an untroubled joint, uniform per clip.
        confidence_std: White noise of the confidence.
        confusion_rate: Share of frames in which a limb is confused with that of the other side.
        outlier_rate: Share of keypoints that are anywhere about the person.
        joint_loss_rate: Share of keypoints that are lost regardless of occlusion.
        frame_loss_rate: Share of frames that are lost altogether.
        absence_rate: Share of clips in which every joint has a chance of 0.15 never to be seen.
        crop_rate: Share of clips in which the picture ends somewhere below the hips.
        threshold_rate: Share of clips whose detector drops keypoints below a confidence (drawn up to 0.35).
        source_shares: Shares of clips that come from a skeleton with its own pelvis and neck (Halpe-26), with
            neither (COCO-17), and with all 17 joints; what a skeleton lacks is derived, as
            `core.skeleton.convert_keypoints` does it.
    """

    severity: tuple[float, float] = (0.4, 2.0)
    jitter_std: float = 0.007
    drift_std: float = 0.035
    drift_correlation: float = 0.75
    trouble_median: float = 0.03
    trouble_spread: float = 1.2
    trouble_correlation: float = 0.8
    error_per_trouble: float = 6.0
    occlusion_trouble: float = 0.6
    definition_scale: float = 1.0
    confidence_range: tuple[float, float] = (0.75, 0.97)
    confidence_std: float = 0.02
    confusion_rate: float = 0.004
    outlier_rate: float = 0.001
    joint_loss_rate: float = 0.01
    frame_loss_rate: float = 0.01
    absence_rate: float = 0.1
    crop_rate: float = 0.1
    threshold_rate: float = 0.4
    source_shares: tuple[float, float, float] = (0.4, 0.4, 0.2)

    def __post_init__(self) -> None:
        require_range("noise.severity", self.severity, above=0.0)
        require_range("noise.confidence_range", self.confidence_range, above=0.0, most=1.0)
        for name in ("confusion", "outlier", "joint_loss", "frame_loss", "absence", "crop", "threshold"):
            require_number(f"noise.{name}_rate", getattr(self, f"{name}_rate"), least=0.0, most=1.0)
        for name in ("drift_correlation", "trouble_correlation"):
            require_number(f"noise.{name}", getattr(self, name), least=0.0, below=1.0)
        for name in (
            *("jitter_std", "drift_std", "confidence_std", "trouble_spread", "trouble_median"),
            *("error_per_trouble", "occlusion_trouble", "definition_scale"),
        ):
            require_number(f"noise.{name}", getattr(self, name), least=0.0)
        _require_source_shares(self.source_shares)

    def __call__(
        self,
        keypoints_px: Float[Tensor, "clip frame 17 2"],
        joints_cam_m: Float[Tensor, "clip frame 17 3"],
        generator: torch.Generator,
        image_size: Int[Tensor, "clip 2"] | None = None,
    ) -> DetectedKeypoints:
        """Corrupts a batch of clips.

        Args:
            keypoints_px: (B, T, 17, 2) exact projections of the joints, `H36M_17`.
            joints_cam_m: (B, T, 17, 3) the joints in the camera frame, for occlusion and the size in pixels.
            generator: Source of all randomness, on the device of the keypoints; one seed, one result.
            image_size: (B, 2) (height, width). Joints outside it are lost or held at its edge.
        """
        num_clips, num_frames = keypoints_px.shape[:2]
        draw = _Draw(num_clips, num_frames, generator, keypoints_px)
        low, high = self.severity
        severity = torch.exp(draw.uniform(math.log(low), math.log(high)))
        error_scale = draw.constant([trait[0] for trait in _TRAITS])
        proneness = draw.constant([trait[1] for trait in _TRAITS])
        torso_px, px_per_m = _apparent_torso(keypoints_px, joints_cam_m)

        confused = self._confused_joints(draw, severity, joints_cam_m)
        outside, held_px = self._outside_picture(draw, keypoints_px, image_size)
        trouble = self.trouble_median * severity[:, None, None].sqrt() * proneness
        trouble = trouble * torch.exp(self.trouble_spread * draw.correlated(self.trouble_correlation, 17))
        by_occlusion = draw.uniform(0.0, self.occlusion_trouble)[:, None, None]
        trouble = trouble + by_occlusion * self._occlusion(joints_cam_m)
        trouble = trouble + 0.15 * confused + 1.5 * outside

        # Errors: jitter and drift that grow with trouble, the detector's own idea of the joints, outliers.
        spread_px = (torso_px * severity[:, None])[..., None] * error_scale
        spread_px = spread_px * (1 + self.error_per_trouble * trouble)
        error = self.jitter_std * draw.normal(17, 2)
        error = error + self.drift_std * draw.smooth(self.drift_correlation, 17, 2)
        observed_px = torch.where(outside[..., None], held_px, keypoints_px)
        observed_px = observed_px + self._definition_offsets_px(draw, joints_cam_m, px_per_m)
        observed_px = torch.where(
            confused[..., None], observed_px[:, :, H36M_17.mirror_permutation], observed_px
        )
        observed_px = observed_px + spread_px[..., None] * error
        is_outlier = draw.uniform_per_frame(17) < self.outlier_rate * severity[:, None, None]
        outlier_px = observed_px[:, :, :1] + torso_px[..., None, None] * draw.normal(17, 2)
        observed_px = torch.where(is_outlier[..., None], outlier_px, observed_px)
        # Half of the outliers are reported with full confidence, as real detectors do.
        trouble = trouble + is_outlier * (draw.uniform_per_frame(17) < 0.5)

        confidence = draw.uniform(*self.confidence_range)[:, None, None] * torch.exp(-trouble)
        confidence = confidence + self.confidence_std * draw.normal(17)
        confidence = confidence.clamp(min=0.01, max=1.0)
        confidence = torch.where(self._lost(draw, severity, confidence, outside), 0.0, confidence)
        return self._as_converted(draw, observed_px, confidence)

    @staticmethod
    def _occlusion(joints_cam_m: Float[Tensor, "clip frame 17 3"]) -> Float[Tensor, "clip frame 17"]:
        # Every fourth frame will do for something this coarse, at a quarter of the cost.
        every_fourth = occlusion(joints_cam_m[:, ::4])
        return every_fourth.repeat_interleave(4, dim=1)[:, : joints_cam_m.shape[1]]

    def _confused_joints(
        self, draw: "_Draw", severity: Float[Tensor, "clip"], joints_cam_m: Float[Tensor, "clip frame 17 3"]
    ) -> Bool[Tensor, "clip frame 17"]:
        """Joints reported where their mirror joints are: the sides swapped, or both seen where one is."""
        # Five times as frequent from the side, where left and right limbs overlap, as from the front.
        left_hip, right_hip = H36M_17.index("left_hip"), H36M_17.index("right_hip")
        hips = joints_cam_m[:, :, left_hip] - joints_cam_m[:, :, right_hip]
        sideways = hips[..., 2].abs() / hips.norm(dim=-1).clamp(min=1e-6)
        rate = self.confusion_rate * severity[:, None] * (0.4 + 1.6 * sideways)
        events = _happens(draw.correlated(0.7, len(_CONFUSED_LIMBS)), rate[..., None])
        membership = draw.constant(
            [[name.split("_")[-1] in limb for name in H36M_17.joint_names] for limb in _CONFUSED_LIMBS]
        )
        sides = [("left" in name) - ("right" in name) for name in H36M_17.joint_names]
        side = draw.constant(sides)
        # Half of the clips swap; a quarter sees the left limb where the right is; a quarter, the reverse.
        mode = draw.uniform(0.0, 1.0)[:, None]
        takes_part = (mode < 0.5) | ((mode < 0.75) & (side > 0)) | ((mode >= 0.75) & (side < 0))
        return (events.to(membership.dtype) @ membership > 0) & takes_part[:, None]

    def _outside_picture(
        self,
        draw: "_Draw",
        keypoints_px: Float[Tensor, "clip frame 17 2"],
        image_size: Int[Tensor, "clip 2"] | None,
    ) -> tuple[Bool[Tensor, "clip frame 17"], Float[Tensor, "clip frame 17 2"]]:
        """Which joints the picture does not show, and the nearest points that it does show."""
        y = keypoints_px[..., 1]
        pelvis_y, lowest_y = y[:, :, 0].mean(dim=1), y.amax(dim=(1, 2))
        bottom = pelvis_y + draw.uniform(-0.1, 0.9) * (lowest_y - pelvis_y)
        bottom = torch.where(draw.uniform(0.0, 1.0) < self.crop_rate, bottom, torch.inf)
        upper = torch.stack([torch.full_like(bottom, torch.inf), bottom], dim=-1)
        lower = torch.full_like(upper, -torch.inf)
        if image_size is not None:
            upper = torch.minimum(upper, image_size.flip(-1).to(upper.dtype))
            lower = torch.zeros_like(upper)
        held_px = torch.minimum(torch.maximum(keypoints_px, lower[:, None, None]), upper[:, None, None])
        return (held_px != keypoints_px).any(dim=-1), held_px

    def _definition_offsets_px(
        self,
        draw: "_Draw",
        joints_cam_m: Float[Tensor, "clip frame 17 3"],
        px_per_m: Float[Tensor, "clip frame"],
    ) -> Float[Tensor, "clip frame 17 2"]:
        """Offsets that turn with the torso and stay the same through a clip."""
        axes_m = _torso_axes(joints_cam_m)
        amounts = draw.constant([trait[2] for trait in _TRAITS]) * draw.normal_per_clip(17, 3)
        # Left and right agree: the mean of a joint's offset and its mirror joint's mirrored one, scaled back
        # to the same standard deviation.
        mirrored = amounts[:, H36M_17.mirror_permutation] * draw.constant([1.0, -1.0, 1.0])
        is_central = draw.constant([p == i for i, p in enumerate(H36M_17.mirror_permutation)])[:, None]
        amounts = torch.where(is_central > 0, amounts, (amounts + mirrored) / math.sqrt(2))
        offsets_m = self.definition_scale * amounts[:, None] @ axes_m
        return offsets_m[..., :2] * px_per_m[..., None, None]

    def _lost(
        self,
        draw: "_Draw",
        severity: Float[Tensor, "clip"],
        confidence: Float[Tensor, "clip frame 17"],
        outside: Bool[Tensor, "clip frame 17"],
    ) -> Bool[Tensor, "clip frame 17"]:
        joint_lost = _happens(draw.correlated(0.8, 17), (self.joint_loss_rate * severity)[:, None, None])
        frame_lost = _happens(draw.correlated(0.7, 1), (self.frame_loss_rate * severity)[:, None, None])
        absent = draw.uniform_per_clip(17) < 0.15 * (draw.uniform(0.0, 1.0)[:, None] < self.absence_rate)
        has_threshold = draw.uniform(0.0, 1.0) < self.threshold_rate
        threshold = torch.where(has_threshold, draw.uniform(0.05, 0.35), 0.0)[:, None, None]
        drops_outside = (draw.uniform(0.0, 1.0) < 0.6)[:, None, None]
        lost = joint_lost | frame_lost | absent[:, None]
        return lost | (confidence < threshold) | (outside & drops_outside)

    def _as_converted(
        self,
        draw: "_Draw",
        keypoints_px: Float[Tensor, "clip frame 17 2"],
        confidence: Float[Tensor, "clip frame 17"],
    ) -> DetectedKeypoints:
        """Derives what the clip's source skeleton lacks from the rest."""
        halpe, coco, _ = self.source_shares
        choice = draw.uniform(0.0, 1.0)[:, None]
        is_coco, is_partial = choice < coco, choice < coco + halpe
        for name, parts, is_derived in (
            ("pelvis", ("left_hip", "right_hip"), is_coco),
            ("thorax", ("left_shoulder", "right_shoulder"), is_coco),
            ("spine", ("pelvis", "thorax"), is_partial),
        ):
            joint, indices = H36M_17.index(name), [H36M_17.index(part) for part in parts]
            midpoint = keypoints_px[:, :, indices].mean(dim=2)
            keypoints_px[:, :, joint] = torch.where(
                is_derived[..., None], midpoint, keypoints_px[:, :, joint]
            )
            least = confidence[:, :, indices].amin(dim=2)
            confidence[:, :, joint] = torch.where(is_derived, least, confidence[:, :, joint])
        confidence[:, :, H36M_17.index("head")] *= torch.where(is_coco, 0.5, 1.0)
        return DetectedKeypoints(torch.where(confidence[..., None] > 0, keypoints_px, 0.0), confidence)


def _require_source_shares(shares: object) -> None:
    if not isinstance(shares, Sequence) or isinstance(shares, str) or len(shares) != 3:
        raise ValueError(
            "noise.source_shares must be three numbers, of Halpe-26, COCO-17 and all joints, as in [0.4,0.4,0.2], "
            f"not {'null' if shares is None else shares}."
        )
    for share in shares:
        require_number("Each of noise.source_shares", share, least=0.0, most=1.0)
    if abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"noise.source_shares must sum to 1, not {list(shares)}.")


def occlusion(joints_cam_m: Float[Tensor, "clip frame 17 3"]) -> Float[Tensor, "clip frame 17"]:
    """How far each joint is hidden behind another body part, from 0 (in view) to 1.

    Body parts are capsules around the bones. In the image plane a joint is compared with the nearest point of
    each capsule's axis; it is hidden where it lies within the capsule's outline and behind it. Capsules that
    a joint lies in anyway are left out (`_may_hide`).
    """
    num_clips, num_frames = joints_cam_m.shape[:2]
    # Joints first, so that the innermost loop runs over clips and frames: several times faster on a CPU.
    x, y, depth = joints_cam_m.reshape(-1, 17, 3).permute(2, 1, 0).contiguous().unbind(0)
    depth = depth.clamp(min=0.1)
    x, y = x / depth, y / depth
    starts = [H36M_17.index(start) for start, _, _ in _CAPSULES]
    ends = [H36M_17.index(end) for _, end, _ in _CAPSULES]
    radii = torch.tensor([radius for _, _, radius in _CAPSULES]).to(joints_cam_m)[:, None]
    may_hide = torch.tensor(_may_hide()).to(joints_cam_m)[..., None]

    axis_x, axis_y, axis_depth = x[ends] - x[starts], y[ends] - y[starts], depth[ends] - depth[starts]
    length_squared = (axis_x.square() + axis_y.square()).clamp(min=1e-12)
    from_start_x, from_start_y = x[:, None] - x[starts], y[:, None] - y[starts]
    along = from_start_x * (axis_x / length_squared) + from_start_y * (axis_y / length_squared)
    along = along.clamp(0.0, 1.0)
    distance = torch.hypot(from_start_x - along * axis_x, from_start_y - along * axis_y)
    capsule_depth = along * axis_depth + depth[starts]

    within = (1.5 - distance * capsule_depth / radii).clamp(0.0, 1.0)
    # A joint lies inside its own limb; it is hidden once another part's axis is a good radius nearer.
    behind = ((depth[:, None] - capsule_depth) / radii - 0.5).clamp(0.0, 1.0)
    hidden = (within * behind * may_hide).amax(dim=1)
    return hidden.T.reshape(num_clips, num_frames, 17)


def _may_hide() -> list[list[bool]]:
    """(17, number of capsules): the capsule neither ends in the joint nor is the trunk around it."""
    trunk = {("pelvis", "thorax"), ("thorax", "head")}
    sides = {("left_hip", "left_shoulder"), ("right_hip", "right_shoulder")}

    def may_hide(joint: str, capsule: tuple[str, str]) -> bool:
        if joint in capsule:
            return False
        if joint in ("pelvis", "spine", "thorax", "nose", "head"):
            return capsule not in trunk | sides
        return not (joint.endswith(("_hip", "_shoulder")) and capsule in trunk)

    return [[may_hide(joint, capsule[:2]) for capsule in _CAPSULES] for joint in H36M_17.joint_names]


def _apparent_torso(
    keypoints_px: Float[Tensor, "clip frame 17 2"], joints_cam_m: Float[Tensor, "clip frame 17 3"]
) -> tuple[Float[Tensor, "clip frame"], Float[Tensor, "clip frame"]]:
    """Length in pixels of the torso, were it parallel to the image, and pixels per metre at the pelvis."""
    depth = joints_cam_m[..., 2:].clamp(min=0.1)
    on_plane = (joints_cam_m[..., :2] / depth).flatten(1, 2)
    pixels = keypoints_px.flatten(1, 2)
    # The focal length is the ratio of the spreads; so the camera need not be passed along.
    spread_px = (pixels - pixels.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2)).sqrt()
    spread = (on_plane - on_plane.mean(dim=1, keepdim=True)).square().sum(dim=(1, 2)).sqrt()
    focal_px = spread_px / spread.clamp(min=1e-9)
    px_per_m = focal_px[:, None] / depth[:, :, 0, 0]
    torso_m = (joints_cam_m[:, :, H36M_17.index("thorax")] - joints_cam_m[:, :, 0]).norm(dim=-1)
    return torso_m * px_per_m, px_per_m


def _torso_axes(joints_cam_m: Float[Tensor, "clip frame 17 3"]) -> Float[Tensor, "clip frame 3 3"]:
    """Rows: up, leftwards and forwards of the torso in the camera frame, each a torso long."""

    def joint(name: str) -> Float[Tensor, "clip frame 3"]:
        return joints_cam_m[:, :, H36M_17.index(name)]

    up = joint("thorax") - joint("pelvis")
    length = up.norm(dim=-1, keepdim=True)
    left = joint("left_hip") - joint("right_hip") + joint("left_shoulder") - joint("right_shoulder")
    forward = torch.nn.functional.normalize(torch.linalg.cross(left, up, dim=-1), dim=-1) * length
    left = torch.nn.functional.normalize(left, dim=-1) * length
    return torch.stack([up, left, forward], dim=-2)


def _happens(process: Float[Tensor, "*batch"], rate: Float[Tensor, "*#batch"]) -> Bool[Tensor, "*batch"]:
    """Runs of True that make up `rate` of all: where a standard normal process exceeds its quantile."""
    return process > torch.special.ndtri(1 - rate.clamp(min=0.0, max=0.9))


class _Draw:
    """Random numbers of the shapes needed here, all from one generator."""

    def __init__(self, num_clips: int, num_frames: int, generator: torch.Generator, like: Tensor) -> None:
        self.num_clips, self.num_frames = num_clips, num_frames
        self.generator, self.device, self.dtype = generator, like.device, like.dtype

    def constant(self, values: list) -> Tensor:
        return torch.tensor(values, device=self.device, dtype=self.dtype)

    def uniform(self, low: float, high: float) -> Float[Tensor, "clip"]:
        return low + (high - low) * self._rand(self.num_clips)

    def uniform_per_clip(self, *shape: int) -> Tensor:
        return self._rand(self.num_clips, *shape)

    def uniform_per_frame(self, *shape: int) -> Tensor:
        return self._rand(self.num_clips, self.num_frames, *shape)

    def normal_per_clip(self, *shape: int) -> Tensor:
        return self._randn(self.num_clips, *shape)

    def normal(self, *shape: int) -> Tensor:
        return self._randn(self.num_clips, self.num_frames, *shape)

    def correlated(self, correlation: float, *shape: int) -> Tensor:
        """Standard normal (B, T, *shape), frames s and t correlated by correlation^|s − t| (first order)."""
        return self._filtered(self._first_order(correlation), shape)

    def smooth(self, pole: float, *shape: int) -> Tensor:
        """Standard normal (B, T, *shape), a first-order process run through the same filter once more."""
        first_order = self._first_order(pole)
        return self._filtered(torch.nn.functional.normalize(first_order @ first_order, dim=1), shape)

    def _first_order(self, correlation: float) -> Float[Tensor, "frame frame"]:
        frames = torch.arange(self.num_frames, device=self.device)
        lag = (frames[:, None] - frames).to(self.dtype)
        factor = torch.where(lag >= 0, correlation ** lag.clamp(min=0), 0.0) * math.sqrt(1 - correlation**2)
        factor[:, 0] /= math.sqrt(1 - correlation**2)
        return factor

    def _filtered(self, factor: Float[Tensor, "frame frame"], shape: tuple[int, ...]) -> Tensor:
        white = self._randn(self.num_clips, self.num_frames, math.prod(shape))
        return (factor @ white).reshape(self.num_clips, self.num_frames, *shape)

    def _rand(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator, device=self.device, dtype=self.dtype)

    def _randn(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, device=self.device, dtype=self.dtype)
