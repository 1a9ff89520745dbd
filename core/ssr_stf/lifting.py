"""2D → 3D pose: the 3D-pose head, the model, its loss, and the model run over sequences of any length.

Shapes: B clips, T frames, J = 17 joints of H36M_17.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.backbone import Backbone, check_backbone_fits
from core.keypoints.clip import normalise_clip
from core.keypoints.windows import blend_windows, split_windows
from core.linear import without_autocast
from core.point_errors import difference_error, mean_point_error, scale_aligned
from core.settings import require_number
from core.skeleton import H36M_17
from core.weights import ClipFormat, load_model

# How pixels become the network's input. "crop": turned towards the person and scaled (core.keypoints.clip); 3D
# joints are then in the crop's frame. "screen": x over half the image's width, about its middle (VideoPose3D);
# 3D joints are in the camera's frame.
InputNormalisation = Literal["crop", "screen"]
Windows = Literal["overlapped", "tiled", "centre"]
# Windows run through the model together; bounds the memory of a long sequence.
_WINDOWS_AT_ONCE = 32


class LiftingHead(nn.Module):
    """Linear head from pose features to 3D joints (MotionBERT, MotionAGFormer).

    The unit is that of the training targets, relative to the pelvis; see `core.ssr_stf.lifting_data`.

    Args:
        dim_representation: channels of the features.
        num_tokens: feature tokens per frame: one per joint, or a single one for all of them.
    """

    def __init__(self, *, dim_representation: int, num_tokens: int = H36M_17.num_joints) -> None:
        super().__init__()
        if num_tokens not in (1, H36M_17.num_joints):
            raise ValueError(
                f"A lifting head takes 1 or {H36M_17.num_joints} tokens per frame, not {num_tokens}."
            )
        self.num_tokens = num_tokens
        self.dim_representation = dim_representation
        self.out = nn.Linear(dim_representation, 3 * H36M_17.num_joints // num_tokens)

    def muon_matrices(self) -> list[nn.Parameter]:
        """None: an output layer is AdamW's, with one token or with many."""
        return []

    def forward(self, features: Float[Tensor, "*batch token dim"]) -> Float[Tensor, "*batch 17 3"]:
        """3D joint positions."""
        with without_autocast(features):
            joints: Tensor = self.out(features.to(self.out.weight.dtype))
        return joints.reshape(*features.shape[:-2], H36M_17.num_joints, 3)


class LiftingModel(nn.Module):
    """Backbone and 3D-pose head; ValueError if they do not fit each other."""

    def __init__(self, *, backbone: Backbone, head: LiftingHead) -> None:
        super().__init__()
        check_backbone_fits(backbone, head.num_tokens, head.dim_representation)
        self.backbone = backbone
        self.head = head

    def forward(self, keypoints: Float[Tensor, "clip frame 17 3"]) -> Float[Tensor, "clip frame 17 3"]:
        """Joints from normalised (x, y, confidence)."""
        joints: Tensor = self.head(self.backbone(keypoints))
        return joints


class ConstantPose(nn.Module):
    """Always the same pose: the baseline that a model has to leave behind."""

    pose: Tensor

    def __init__(self, pose: Float[Tensor, "17 3"]) -> None:
        super().__init__()
        self.register_buffer("pose", pose)

    def forward(self, keypoints: Float[Tensor, "clip frame 17 3"]) -> Float[Tensor, "clip frame 17 3"]:
        return self.pose.expand(*keypoints.shape)


@dataclass(frozen=True, kw_only=True)
class LiftingLoss:
    """Weighted sum of MPJPE, N-MPJPE and velocity error, as in MotionBERT and MotionAGFormer (1, 0.5, 20).

    Every term is a length, so the ratio of the weights holds in any unit.
    """

    position: float
    scale_aligned: float
    velocity: float

    def __post_init__(self) -> None:
        for field in fields(self):
            require_number(f"loss.{field.name}", getattr(self, field.name), least=0.0)

    def terms(
        self, joints: Float[Tensor, "clip frame 17 3"], true_joints: Float[Tensor, "clip frame 17 3"]
    ) -> dict[str, Tensor]:
        """Each term by name, unweighted; the velocity of a clip of one frame is 0."""
        velocity = difference_error(joints, true_joints, order=1)
        return {
            "position": mean_point_error(joints, true_joints).mean(),
            "scale_aligned": mean_point_error(scale_aligned(joints, true_joints), true_joints).mean(),
            "velocity": velocity.mean() if velocity.numel() else joints.new_zeros(()),
        }

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        return torch.stack([getattr(self, name) * value for name, value in terms.items()]).sum()


LIFTING_HEADS = {"core.ssr_stf.lifting.LiftingHead": LiftingHead}


def load_lifting_model(path: str | Path) -> tuple[LiftingModel, ClipFormat]:
    """`core.weights.load_model` for a file of tools/train_pose.py."""
    model, clip = load_model(path, LiftingModel, LIFTING_HEADS)
    if clip.get("normalisation") not in get_args(InputNormalisation):
        raise ValueError(f"{path} is damaged: its header's clip does not say how keypoints are normalised.")
    return model, clip


def normalised_input(
    keypoints_px: Float[Tensor, "clip frame 17 2"],
    confidence: Float[Tensor, "clip frame 17"],
    *,
    normalisation: InputNormalisation,
    image_size: tuple[int, int],
    K: Float[Tensor, "3 3"] | None,
) -> tuple[Float[Tensor, "clip frame 17 3"], Float[Tensor, "clip 3 3"]]:
    """Network input, and the rotation R_cam_out from the frame of the network's joints to the camera's.

    Args:
        keypoints_px: of one camera.
        confidence: 0 = unseen.
        image_size: (height, width); for "screen".
        K: intrinsics; for "crop".

    Raises:
        ValueError: a crop without intrinsics.
    """
    if normalisation == "crop":
        if K is None:
            raise ValueError("Keypoints without the camera's intrinsics cannot be turned into crops.")
        clip = normalise_clip(keypoints_px, confidence, K.expand(len(keypoints_px), 3, 3))
        return clip.keypoints, clip.R_crop_cam.transpose(-1, -2)
    height, width = image_size
    xy = keypoints_px * (2 / width) - keypoints_px.new_tensor([1.0, height / width])
    identity = torch.eye(3, dtype=xy.dtype, device=xy.device).expand(len(xy), 3, 3)
    return torch.cat([xy, confidence[..., None]], dim=-1), identity


def mirrored(points: Float[Tensor, "*batch 17 channel"]) -> Float[Tensor, "*batch 17 channel"]:
    """Left and right exchanged and x negated; of keypoints (x, y, confidence) and of joints (x, y, z) alike."""
    sign = points.new_ones(points.shape[-1])
    sign[0] = -1
    return points[..., list(H36M_17.mirror_permutation), :] * sign


@torch.no_grad()
def lift_sequence(
    model: nn.Module,
    keypoints_px: Float[Tensor, "frame 17 2"],
    confidence: Float[Tensor, "frame 17"],
    *,
    normalisation: InputNormalisation,
    image_size: tuple[int, int],
    K: Float[Tensor, "3 3"] | None,
    window_frames: int,
    windows: Windows,
    mirror_test: bool,
    wanted: Bool[Tensor, "frame"] | None = None,
) -> Float[Tensor, "frame 17 3"]:
    """Joints of every frame of one camera's view of one person, of any length, in the camera's axes.

    Args:
        model: normalised keypoints (B, T, 17, 3) to joints relative to the pelvis.
        window_frames: clip length the model is run with.
        windows: "overlapped": by half, blended with Hann weights; "tiled": side by side, as MotionBERT and
            MotionAGFormer evaluate Human3.6M, and for the frames after the last whole window one that ends with
            the sequence; "centre": a window around every frame, of which only the middle counts, as P-STMO and
            MotionAGFormer evaluate MPI-INF-3DHP.
        mirror_test: also lift the mirror image, and average both.
        wanted: with "centre", whose every frame costs a window: of other frames NaN will do.

    Returns:
        (T, 17, 3) relative to the pelvis, in the model's unit; the pelvis is 0, whatever the model says of it,
        as in all predecessors' evaluations. At its ends, the sequence is held where a window reaches beyond it.
    """
    num_frames = len(keypoints_px)
    frames, slices = _window_frames(num_frames, window_frames, windows)
    lifts_all = windows != "centre" or wanted is None or not wanted.any()
    if not lifts_all:
        frames = frames[wanted]
    frames = frames.to(keypoints_px.device)
    lifted = []
    for some in frames.split(_WINDOWS_AT_ONCE):
        clip, R_cam_out = normalised_input(
            keypoints_px[some], confidence[some], normalisation=normalisation, image_size=image_size, K=K
        )
        joints = model(clip)
        if mirror_test:
            joints = (joints + mirrored(model(mirrored(clip)))) / 2
        joints = joints @ R_cam_out[:, None].transpose(-1, -2)
        lifted.append(joints[:, window_frames // 2][:, None] if windows == "centre" else joints)
    values = list(torch.cat(lifted))
    if windows == "tiled":
        joints = keypoints_px.new_empty((slices[-1].stop, H36M_17.num_joints, 3))
        # The last one first: it stays where it is alone.
        for window, value in zip(slices[::-1], values[::-1], strict=True):
            joints[window] = value
        joints = joints[:num_frames]
    elif windows == "overlapped":
        joints = blend_windows(values, slices, slices[-1].stop)[:num_frames]
    elif lifts_all:
        joints = torch.cat(values)
    else:
        joints = keypoints_px.new_full((num_frames, H36M_17.num_joints, 3), torch.nan)
        joints[wanted] = torch.cat(values)
    joints[:, 0] = 0
    return joints


def window_borders(num_frames: int, window: int, windows: Windows) -> Bool[Tensor, "step"]:
    """Of the steps from each frame to the next (num_frames − 1), those at which a window of `lift_sequence` begins
    or ends; with "centre", where every step does, none."""
    is_border = torch.zeros(num_frames + 1, dtype=torch.bool)
    if windows == "tiled":
        is_border[::window] = True
        return is_border[1:num_frames]
    for each in _window_frames(num_frames, window, windows)[1]:
        is_border[[each.start, min(each.stop, num_frames)]] = True
    return is_border[1:num_frames]


def _window_frames(
    num_frames: int, window: int, windows: Windows
) -> tuple[Int[Tensor, "window frame"], list[slice]]:
    """The frames of each window, the sequence being held at its ends, and the windows as slices."""
    if windows == "centre":
        around = torch.arange(window) - window // 2
        return (torch.arange(num_frames)[:, None] + around).clamp(0, num_frames - 1), []
    held = torch.arange(max(num_frames, window)).clamp(max=num_frames - 1)
    slices = split_windows(len(held), window, window // 2 if windows == "overlapped" else 0)
    return torch.stack([held[each] for each in slices]), slices
