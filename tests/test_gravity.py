"""Up before a camera: how it is judged by people, and the axes of a level camera."""

import math

import pytest
import torch
from torch import Tensor

from body_models.open_body import load_open_body, load_open_body_regressor
from body_models.parameters import BodyParameters
from core.gravity import Level, estimate_up, level_rotation
from core.rotations import rotvec_to_rotmat

NOBODY = torch.zeros(0, 17, 3)


@pytest.fixture(scope="module")
def standing_m() -> Tensor:
    """H36M_17 joints of people who stand, sway and turn, before a level camera (y down)."""
    generator = torch.Generator().manual_seed(0)
    poses = 0.15 * torch.randn(60, 24, 3, generator=generator)
    upside = rotvec_to_rotmat(torch.tensor([torch.pi, 0.0, 0.0]))
    turn = rotvec_to_rotmat(torch.linspace(0, 5, 60)[:, None] * torch.tensor([0.0, 1.0, 0.0]))
    parameters = BodyParameters(
        turn @ upside @ rotvec_to_rotmat(poses[:, 0]),
        rotvec_to_rotmat(poses[:, 1:]),
        torch.zeros(1, 10),
        torch.tensor([0.3, 0.1, 4.0]).expand(60, 3),
    )
    return load_open_body_regressor("h36m_17")(load_open_body("neutral")(parameters).vertices_m)


def test_level_axes_come_by_the_shortest_turn() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        tilt = torch.randn(3, generator=generator, dtype=torch.float64) * torch.tensor([0.5, 0.5, 0.5])
        up = rotvec_to_rotmat(tilt) @ torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
        R = level_rotation(up)
        torch.testing.assert_close(R @ R.T, torch.eye(3, dtype=torch.float64))
        torch.testing.assert_close(R @ up, torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64))
        turn = torch.acos(((R.trace() - 1) / 2).clamp(-1, 1))
        torch.testing.assert_close(turn, torch.acos((-up[1]).clamp(-1, 1)), atol=1e-6, rtol=0)
    torch.testing.assert_close(level_rotation(torch.tensor([0.0, -1.0, 0.0])), torch.eye(3))


@pytest.mark.parametrize("pitch_deg", [-60.0, 0.0, 17.6, 90.0])
def test_a_given_pitch_is_kept(pitch_deg: float) -> None:
    level = Level.of(pitch_deg, NOBODY)
    assert not level.is_estimated
    assert level.pitch_deg == pytest.approx(pitch_deg, abs=1e-3)
    ahead = level.R_level_cam @ torch.tensor([0.0, 0.0, 1.0])
    torch.testing.assert_close(ahead[0], torch.tensor(0.0))
    assert float(ahead[1]) == pytest.approx(math.sin(math.radians(pitch_deg)), abs=1e-5)  # y is down
    looks = {-60.0: "look up by 60°", 0.0: "be level", 17.6: "look down by 18°", 90.0: "look down by 90°"}
    assert str(level) == f"The camera is taken to {looks[pitch_deg]}."


@pytest.mark.parametrize(("pitch_deg", "roll_deg"), [(0, 0), (30, 0), (-12, 8), (40, -15)])
def test_people_who_stand_say_where_up_is(standing_m: Tensor, pitch_deg: float, roll_deg: float) -> None:
    down = rotvec_to_rotmat(torch.tensor([math.radians(pitch_deg), 0.0, 0.0]))
    roll = rotvec_to_rotmat(torch.tensor([0.0, 0.0, math.radians(roll_deg)]))
    R_cam_level = roll @ down
    level = Level.of(None, standing_m @ R_cam_level.T)
    assert level.is_estimated
    assert level.pitch_deg == pytest.approx(Level(R_cam_level.T).pitch_deg, abs=4)
    assert level.pitch_deg == pytest.approx(pitch_deg, abs=4)
    up = level.R_level_cam @ R_cam_level @ torch.tensor([0.0, -1.0, 0.0])
    assert float(up[1]) < -math.cos(math.radians(4))
    assert "by how people stand before it" in str(level)


def test_a_few_frames_of_something_else_do_not_count(standing_m: Tensor) -> None:
    fallen = rotvec_to_rotmat(torch.tensor([0.0, 0.0, 1.5]))
    seen = torch.cat([standing_m, standing_m[:20] @ fallen.T])
    assert Level.of(None, seen).pitch_deg == pytest.approx(0, abs=5)


def test_people_who_lie_say_nothing(standing_m: Tensor) -> None:
    for rotvec in ([0.0, 0.0, 1.5], [1.4, 0.0, 0.0], [3.0, 0.0, 0.0]):
        lying_m = standing_m @ rotvec_to_rotmat(torch.tensor(rotvec)).T
        assert estimate_up(lying_m) is None
        level = Level.of(None, lying_m)
        assert not level.is_estimated
        torch.testing.assert_close(level.R_level_cam, torch.eye(3))
    assert estimate_up(NOBODY) is None


@pytest.mark.parametrize("pitch", [91, -100.0, float("nan")])
def test_no_angle_is_refused(pitch: float) -> None:
    with pytest.raises(ValueError, match="camera_pitch_deg must be a number"):
        Level.of(pitch, NOBODY)
