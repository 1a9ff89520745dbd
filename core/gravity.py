"""Which way is up before a camera, judged by the people in it.

A camera that looks down, or stands askew, sees people lean who stand upright. How it stands is in no keypoint
file, but people's feet are below their shoulders most of the time.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from core.rotations import rotvec_to_rotmat
from core.settings import require_number
from core.skeleton import H36M_17

# Further from level than this a camera rarely is, and people who lie down seem to be.
LARGEST_TILT_DEG = 50.0
_UP_OF_LEVEL_CAMERA = (0.0, -1.0, 0.0)


@dataclass(frozen=True)
class Level:
    """How a camera stands.

    Attributes:
        R_level_cam: from its axes to those of a level camera (x right, y down) at the same place.
        is_estimated: whether that was judged by people.
    """

    R_level_cam: Float[Tensor, "3 3"] = field(default_factory=lambda: torch.eye(3))
    is_estimated: bool = False

    @classmethod
    def of(cls, camera_pitch_deg: int | float | None, joints_cam_m: Float[Tensor, "frame 17 3"]) -> "Level":
        """Of a camera that looks down by so much, without roll; or with None as people stand before it.

        Raises:
            ValueError: no number from -90 to 90.
        """
        require_pitch(camera_pitch_deg)
        if camera_pitch_deg is None:
            up_cam = estimate_up(joints_cam_m)
            return cls() if up_cam is None else cls(level_rotation(up_cam), is_estimated=True)
        pitch = math.radians(camera_pitch_deg)
        return cls(level_rotation(torch.tensor([0.0, -math.cos(pitch), -math.sin(pitch)])))

    @classmethod
    def of_people(
        cls,
        camera_pitch_deg: int | float | None,
        joints_cam_m: Sequence[Float[Tensor, "_ 17 3"]],
        *,
        one_camera: bool,
    ) -> list["Level"]:
        """`of` the people of one video together, or of each still by itself."""
        if one_camera:
            return [cls.of(camera_pitch_deg, torch.cat(list(joints_cam_m)))] * len(joints_cam_m)
        return [cls.of(camera_pitch_deg, of_person) for of_person in joints_cam_m]

    @property
    def pitch_deg(self) -> float:
        """How far the camera looks down, whatever its roll; negative: up."""
        x, y, z = (-self.R_level_cam[1]).tolist()  # up, in the camera's axes
        return math.degrees(math.atan2(-z, math.hypot(x, y)))

    def __str__(self) -> str:
        pitch_deg = round(self.pitch_deg)
        looks = f"look {'up' if pitch_deg < 0 else 'down'} by {abs(pitch_deg)}°" if pitch_deg else "be level"
        if not self.is_estimated:
            return f"The camera is taken to {looks}."
        return (
            f"The camera is taken to {looks}, by how people stand before it; give camera_pitch_deg=… if you know "
            "it."
        )


def require_pitch(camera_pitch_deg: object) -> None:
    """ValueError unless it is a number from -90 to 90, or None."""
    require_number("camera_pitch_deg", camera_pitch_deg, least=-90, most=90, may_be_null=True)


def estimate_up(joints_cam_m: Float[Tensor, "frame 17 3"]) -> Float[Tensor, "3"] | None:
    """The unit vector that points up, in the frame of the camera (x right, y down, z forward).

    The median over the frames of the direction from between the ankles to the thorax, in H36M_17. On recorded
    people who walk, sit, climb, reach and idle, unseen by the model that recovered them, it is 4.4° off on average
    and 15° at most, where "level" is 11° off and 35° at most (docs/export.md).

    Returns:
        None where there is no frame, or where it would be more than `LARGEST_TILT_DEG` from a level camera's:
        people lie, or stand on their heads.
    """
    left, right, thorax = (H36M_17.index(joint) for joint in ("left_ankle", "right_ankle", "thorax"))
    axes = joints_cam_m[:, thorax] - (joints_cam_m[:, left] + joints_cam_m[:, right]) / 2
    if len(axes) == 0:
        return None
    median = (axes / axes.norm(dim=-1, keepdim=True).clamp(min=1e-6)).median(dim=0).values
    up_cam = median / median.norm().clamp(min=1e-6)
    level = up_cam.new_tensor(_UP_OF_LEVEL_CAMERA)
    return up_cam if float(up_cam @ level) > math.cos(math.radians(LARGEST_TILT_DEG)) else None


def level_rotation(up_cam: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """R_level_cam: the shortest turn that takes up, in the camera's axes, to -y. What was ahead stays ahead."""
    level = up_cam.new_tensor(_UP_OF_LEVEL_CAMERA)
    axis = torch.linalg.cross(up_cam, level)
    angle = torch.atan2(axis.norm(), up_cam @ level)
    return rotvec_to_rotmat(axis / axis.norm().clamp(min=1e-9) * angle)
