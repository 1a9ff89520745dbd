"""Lifting: losses, clips from every source, and sequences of any length."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command_fixtures import composed
from hydra.utils import instantiate
from lifting_fixtures import SMALL_MOTION, write_lifting_store
from torch import Tensor, nn

from core.datasets.lifting_sequences import PreparedLifting
from core.skeleton import H36M_17
from core.ssr_stf.lifting import (
    ConstantPose,
    LiftingHead,
    LiftingLoss,
    lift_sequence,
    mirrored,
    normalised_input,
    window_borders,
)
from core.ssr_stf.lifting_data import LiftingSource, PreparedLiftingSource
from core.ssr_stf.lifting_evaluation import Lifter, frame_rate_remark
from core.ssr_stf.lifting_protocols import find_lifting_protocol

SCREEN = {"normalisation": "screen", "image_size": (1000, 1000), "K": None}


def _screen_keypoints(num_frames: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    keypoints_px = 1000 * torch.rand(num_frames, 17, 2, generator=generator)
    return keypoints_px, torch.rand(num_frames, 17, generator=generator)


def test_loss_weighs_position_scale_and_velocity() -> None:
    loss = LiftingLoss(position=1.0, scale_aligned=0.5, velocity=20.0)
    true = torch.randn(2, 5, 17, 3)
    terms = loss.terms(2 * true, true)
    assert float(terms["scale_aligned"]) == pytest.approx(0, abs=1e-6)
    assert float(terms["position"]) == pytest.approx(float(true.norm(dim=-1).mean()))
    assert float(loss.total(terms)) == pytest.approx(
        float(terms["position"] + 20 * terms["velocity"]), rel=1e-6
    )
    assert loss.terms(true[:, :1], true[:, :1])["velocity"] == 0


def test_loss_has_finite_gradients_where_all_joints_coincide() -> None:
    loss = LiftingLoss(position=1.0, scale_aligned=0.5, velocity=20.0)
    joints = torch.zeros(1, 3, 17, 3, requires_grad=True)
    loss.total(loss.terms(joints, torch.randn(1, 3, 17, 3))).backward()
    assert joints.grad is not None
    assert joints.grad.isfinite().all()


def test_mirroring_is_its_own_inverse_and_exchanges_sides() -> None:
    joints = torch.randn(2, 17, 3)
    torch.testing.assert_close(mirrored(mirrored(joints)), joints)
    left, right = H36M_17.index("left_wrist"), H36M_17.index("right_wrist")
    torch.testing.assert_close(mirrored(joints)[:, left], joints[:, right] * torch.tensor([-1.0, 1, 1]))


def test_head_takes_a_token_per_joint_or_one_for_all() -> None:
    assert LiftingHead(dim_representation=8)(torch.zeros(2, 3, 17, 8)).shape == (2, 3, 17, 3)
    assert LiftingHead(dim_representation=8, num_tokens=1)(torch.zeros(2, 3, 1, 8)).shape == (2, 3, 17, 3)
    with pytest.raises(ValueError, match="1 or 17 tokens per frame, not 5"):
        LiftingHead(dim_representation=8, num_tokens=5)


def test_screen_input_is_the_predecessors() -> None:
    keypoints_px = torch.tensor([0.0, 0.0]).expand(1, 1, 17, 2).clone()
    keypoints_px[0, 0, 0] = torch.tensor([1920.0, 1080.0])
    keypoints, _ = normalised_input(
        keypoints_px, torch.ones(1, 1, 17), normalisation="screen", image_size=(1080, 1920), K=None
    )
    torch.testing.assert_close(keypoints[0, 0, 0], torch.tensor([1.0, 0.5625, 1.0]))
    torch.testing.assert_close(keypoints[0, 0, 1], torch.tensor([-1.0, -0.5625, 1.0]))
    with pytest.raises(ValueError, match="without the camera's intrinsics"):
        normalised_input(
            keypoints_px, torch.ones(1, 1, 17), normalisation="crop", image_size=(1080, 1920), K=None
        )


class _ByHalves(nn.Module):
    """A network that errs by its position in the clip, as all do that see less at the ends."""

    def __init__(self, true_x_px: Tensor) -> None:
        super().__init__()
        self.errors = 0.02 * torch.randn(len(true_x_px), 17, 3, generator=torch.Generator().manual_seed(1))

    def forward(self, keypoints: Tensor) -> Tensor:
        # The clip's first keypoint tells where in the sequence it lies; each clip errs in its own way.
        first = ((keypoints[:, 0, 0, 0] + 1) * 500).round().long()
        frames = torch.linspace(-1, 1, keypoints.shape[1])
        growing = 0.5 + frames.square()
        return keypoints + self.errors[first][:, None] * growing[None, :, None, None]


def test_overlapped_windows_leave_no_seam() -> None:
    """Velocity error at the borders of windows is that of elsewhere; side by side it would be many times."""
    num_frames, window = 400, 27
    keypoints_px, confidence = _screen_keypoints(num_frames)
    keypoints_px[:, 0, 0] = torch.arange(num_frames)
    model = _ByHalves(keypoints_px[:, 0, 0])
    exact = lift_sequence(
        nn.Identity(),
        keypoints_px,
        confidence,
        **SCREEN,
        window_frames=window,
        windows="tiled",
        mirror_test=False,
    )
    ratios = {}
    for windows in ("overlapped", "tiled"):
        lifted = lift_sequence(
            model,
            keypoints_px,
            confidence,
            **SCREEN,
            window_frames=window,
            windows=windows,
            mirror_test=False,
        )
        velocity = (lifted - exact).diff(dim=0).norm(dim=-1)[:, 1:].mean(dim=-1)
        is_border = window_borders(num_frames, window, windows)
        inner = slice(window, num_frames - 2 * window)
        ratios[windows] = float(
            velocity[inner][is_border[inner]].mean() / velocity[inner][~is_border[inner]].mean()
        )
    assert ratios["overlapped"] < 1.05
    assert ratios["tiled"] > 3


@pytest.mark.parametrize("num_frames", [4, 8, 10, 3])
def test_tiles_are_lifted_each_by_itself(num_frames: int) -> None:
    """What the last whole one does not cover is the end of a window that ends with the sequence."""
    keypoints_px, confidence = _screen_keypoints(num_frames)

    class Place(nn.Module):
        def forward(self, keypoints: Tensor) -> Tensor:
            place = torch.arange(4.0)[:, None, None].expand(4, 17, 3)
            return place + torch.zeros_like(keypoints)

    settings = {**SCREEN, "window_frames": 4, "windows": "tiled", "mirror_test": False}
    lifted = lift_sequence(Place(), keypoints_px, confidence, **settings)
    expected = {4: [0, 1, 2, 3], 8: [0, 1, 2, 3] * 2, 10: [0, 1, 2, 3] * 2 + [2, 3], 3: [0, 1, 2]}
    assert lifted[:, 5, 0].tolist() == expected[num_frames]


def test_borders_of_windows() -> None:
    """The steps into a window's first frame and out of its last; the last window ends with the sequence."""
    assert window_borders(10, 4, "tiled").nonzero()[:, 0].tolist() == [3, 7]  # 0-3, 4-7, 8-9
    assert window_borders(9, 4, "overlapped").nonzero()[:, 0].tolist() == [
        1,
        3,
        4,
        5,
        7,
    ]  # 0-3, 2-5, 4-7, 5-8
    assert not window_borders(10, 4, "centre").any()
    for num_frames in (1, 2, 4):  # of one window
        assert window_borders(num_frames, 4, "overlapped").tolist() == [False] * (num_frames - 1)


@pytest.mark.parametrize("num_frames", [1, 5, 27, 28, 100])
@pytest.mark.parametrize("windows", ["overlapped", "tiled", "centre"])
def test_any_length_is_lifted(num_frames: int, windows: str) -> None:
    """The identity comes back exactly, mirrored or not, whatever the windows."""
    keypoints_px, confidence = _screen_keypoints(num_frames)
    lifted = lift_sequence(
        nn.Identity(), keypoints_px, confidence, **SCREEN, window_frames=27, windows=windows, mirror_test=True
    )
    expected = torch.cat([keypoints_px / 500 - 1, confidence[..., None]], dim=-1)
    expected[:, 0] = 0
    torch.testing.assert_close(lifted, expected, atol=1e-5, rtol=0)


def test_only_the_windows_that_count_are_lifted() -> None:
    keypoints_px, confidence = _screen_keypoints(30)
    seen = []

    class Counted(nn.Module):
        def forward(self, keypoints: torch.Tensor) -> torch.Tensor:
            seen.append(len(keypoints))
            return keypoints

    wanted = torch.zeros(30, dtype=torch.bool)
    wanted[[0, 7, 29]] = True
    centre = {**SCREEN, "window_frames": 9, "windows": "centre", "mirror_test": False}
    everything = lift_sequence(Counted(), keypoints_px, confidence, **centre)
    some = lift_sequence(Counted(), keypoints_px, confidence, **centre, wanted=wanted)
    assert seen == [30, 3]
    torch.testing.assert_close(some[wanted], everything[wanted])
    assert some[~wanted, 1:].isnan().all()


def test_weights_say_their_unit_and_their_frame_rate(stores: Path) -> None:
    sources = {
        name: PreparedLiftingSource(
            data=PreparedLifting(stores / name), strides_per_clip=3, mirror_probability=0.5
        )
        for name in ("h36m", "3dhp")
    }
    clip = {"num_frames": 27, "fps": 50.0, "normalisation": "screen", "unit": "half image width"}
    rest = (False, torch.device("cpu"))
    Lifter.for_weights(nn.Identity(), clip, sources["h36m"], *rest)
    with pytest.raises(
        ValueError, match="unit half image width, and the truth of these data is in the unit metre"
    ):
        Lifter.for_weights(nn.Identity(), clip, sources["3dhp"], *rest)
    Lifter.for_weights(nn.Identity(), clip | {"unit": "metre"}, sources["3dhp"], *rest)
    with pytest.raises(ValueError, match="unit metre"):
        Lifter.for_weights(nn.Identity(), clip | {"unit": "metre"}, sources["h36m"], *rest)
    sequences = sources["h36m"].test_sequences("test")
    rate = sequences[0].fps
    assert frame_rate_remark(clip | {"fps": rate}, sequences) is None
    assert f"these data have {rate:g}" in (frame_rate_remark(clip | {"fps": 4 * rate}, sequences) or "")
    training = sources["h36m"].training_set(max_clip_frames=27, seed=0)
    assert training.fps in {sequence.fps for sequence in training.sequences}


def test_mirror_test_averages_both() -> None:
    pose = torch.randn(17, 3)
    keypoints_px, confidence = _screen_keypoints(9)
    lifted = lift_sequence(
        ConstantPose(pose),
        keypoints_px,
        confidence,
        **SCREEN,
        window_frames=9,
        windows="tiled",
        mirror_test=True,
    )
    expected = (pose + mirrored(pose)) / 2
    torch.testing.assert_close(lifted[4, 1:], expected[1:])


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("stores")
    write_lifting_store(root / "h36m")
    write_lifting_store(root / "3dhp", "3dhp")
    return root


def test_videopose3ds_followers_leave_nothing_out(tmp_path: Path) -> None:
    write_lifting_store(tmp_path, "h36m_videopose3d")
    source = PreparedLiftingSource(data=PreparedLifting(tmp_path), strides_per_clip=3, mirror_probability=0.0)
    protocol = find_lifting_protocol(source.protocol)
    assert (protocol.left_out, protocol.mean_over) == ((), "actions")
    assert "without" not in protocol.describe()


@pytest.mark.parametrize(("dataset", "unit_mm"), [("h36m", 4 * 500.0), ("3dhp", 1000.0)])
def test_prepared_clips_are_the_test_sequences_in_the_networks_unit(
    stores: Path, dataset: str, unit_mm: float
) -> None:
    source = PreparedLiftingSource(
        data=PreparedLifting(stores / dataset), strides_per_clip=3, mirror_probability=0.0
    )
    assert isinstance(source, LiftingSource)
    protocol = find_lifting_protocol(source.protocol)
    assert protocol.name == {"h36m": "human36m", "3dhp": "mpi_inf_3dhp"}[dataset]
    training = source.training_set(max_clip_frames=27, seed=0)
    # 60 frames: at 0, 9, 18, 27, and 33 to end with it; 47 frames: at 0, 9, 18, and 20.
    assert training.places(27).tolist() == [[0, s] for s in (0, 9, 18, 27, 33)] + [
        [1, s] for s in (0, 9, 18, 20)
    ]
    clips = training.clips(batch_size=9, num_frames=27, step=0)
    assert not clips.joints[:, :, 0].any()
    # The orthographic camera of the fixture: x of joints in mm is 4 px each.
    keypoints = clips.keypoints - clips.keypoints[:, :, :1]
    torch.testing.assert_close(
        keypoints[..., :2] * 500 * 4, clips.joints[..., :2] * unit_mm, atol=0.2, rtol=0
    )
    assert float(source.test_sequences("test")[0].mm_per_unit[0]) == unit_mm
    with pytest.raises(ValueError, match="there is no 'val'"):
        source.test_sequences("val")


def test_every_epoch_shows_every_clip_once_in_its_own_order(stores: Path) -> None:
    source = PreparedLiftingSource(
        data=PreparedLifting(stores / "h36m"), strides_per_clip=3, mirror_probability=0.0
    )
    training = source.training_set(max_clip_frames=27, seed=0)

    def shown(step: int) -> list[float]:
        clips = training.clips(batch_size=3, num_frames=27, step=step)
        return clips.joints[:, 0, 5, 0].tolist()

    epochs = [
        [value for step in range(3 * epoch, 3 * epoch + 3) for value in shown(step)] for epoch in (0, 1)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1])
    assert len(set(epochs[0])) == 9
    assert epochs[0] != epochs[1]
    assert shown(1) == epochs[0][3:6]


def test_mirrored_clips_keep_keypoints_and_joints_together(stores: Path) -> None:
    data = PreparedLifting(stores / "h36m")
    plain, always = (
        PreparedLiftingSource(data=data, strides_per_clip=3, mirror_probability=probability)
        .training_set(max_clip_frames=9, seed=0)
        .clips(batch_size=4, num_frames=9, step=0)
        for probability in (0.0, 1.0)
    )
    torch.testing.assert_close(mirrored(plain.keypoints), always.keypoints)
    torch.testing.assert_close(mirrored(plain.joints), always.joints)


def test_sets_that_cannot_be_used_say_why(stores: Path, tmp_path: Path) -> None:
    source = PreparedLiftingSource(
        data=PreparedLifting(stores / "h36m"), strides_per_clip=3, mirror_probability=0.5
    )
    assert source.training_set(max_clip_frames=50, seed=0).num_too_short == 1
    with pytest.raises(ValueError, match="None of the 2 training sequences is as long"):
        source.training_set(max_clip_frames=243, seed=0)
    with pytest.raises(ValueError, match=r"no 2\.5d_factor"):
        source.test_sequences("train")
    write_lifting_store(tmp_path / "other", "humaneva")
    with pytest.raises(ValueError, match="'humaneva', which is no data set for lifting"):
        PreparedLiftingSource(
            data=PreparedLifting(tmp_path / "other"), strides_per_clip=3, mirror_probability=0.5
        )


def test_motion_clips_are_what_a_perfect_detector_would_see() -> None:
    """Without noise, keypoints are the projection of the joints: rays of both agree, up to where the pelvis is."""
    config = composed("train_pose", *SMALL_MOTION, "clips.noise=null")["clips"]
    source = instantiate(config, _convert_="all")
    assert isinstance(source, LiftingSource)
    training = source.training_set(max_clip_frames=9, seed=0)
    clips = training.clips(batch_size=4, num_frames=9, step=3)
    again = training.clips(batch_size=4, num_frames=9, step=3)
    assert torch.equal(clips.joints, again.joints)
    assert not clips.joints[:, :, 0].any()
    for axis in (0, 1):  # seen from afar, image and joints go together
        image = (clips.keypoints[..., axis] - clips.keypoints[:, :, :1, axis]).flatten().numpy()
        assert np.corrcoef(image, clips.joints[..., axis].flatten().numpy())[0, 1] > 0.9
    sequences = source.test_sequences("val")
    assert sum(len(sequence.keypoints_px) for sequence in sequences) == 120
    pixels = sequences[0].true_joints_mm @ sequences[0].K.T
    np.testing.assert_allclose(pixels[..., :2] / pixels[..., 2:], sequences[0].keypoints_px, atol=0.1)
