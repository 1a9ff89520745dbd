"""What a model is shown of frames in which nothing was seen."""

import numpy as np
import pytest
import torch
from command_fixtures import ROOT
from torch import Tensor

from body_models.open_body import load_open_body, load_open_body_regressor
from core.keypoints.files import read_keypoints
from core.keypoints.gaps import across_gaps
from core.keypoints.track import Track
from core.rotations import geodesic_angle
from core.skeleton import H36M_17
from core.ssr_stf.lifting import load_lifting_model
from core.ssr_stf.lifting_prediction import lift_track
from mesh_head.predictor import MeshPredictor
from mesh_head.weights import find_weights

ALPHAPOSE = ROOT.parent / "shared" / "keypoints" / "alphapose_halpe26.json"


def _keypoints(num_frames: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        100 * torch.rand(num_frames, 17, 2, generator=generator),
        0.1 + 0.9 * torch.rand(num_frames, 17, generator=generator),
    )


def _naive(keypoints_px: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
    found_px, found = keypoints_px.clone(), confidence.clone()
    seen = [t for t in range(len(confidence)) if bool((confidence[t] > 0).any())]
    for t in range(len(confidence)):
        before = [s for s in seen if s < t]
        after = [s for s in seen if s > t]
        if t in seen or not before or not after:
            continue
        a, b = before[-1], after[0]
        share = (t - a) / (b - a)
        for joint in range(confidence.shape[1]):
            at_a, at_b = confidence[a, joint], confidence[b, joint]
            found[t, joint] = (1 - share) * at_a + share * at_b
            line_px = (1 - share) * keypoints_px[a, joint] + share * keypoints_px[b, joint]
            found_px[t, joint] = (
                keypoints_px[b, joint] if at_a <= 0 else keypoints_px[a, joint] if at_b <= 0 else line_px
            )
    return found_px, found


def test_gaps_are_crossed_on_straight_lines() -> None:
    keypoints_px, confidence = _keypoints(30)
    confidence[[0, 1, 7, 12, 13, 14, 15, 28, 29]] = 0  # at both ends, one frame, several
    keypoints_px[confidence[:, 0] == 0] = -1e6  # whatever a file holds there
    confidence[11, 4] = confidence[16, 5] = 0  # seen at one end alone
    confidence[20, 6] = 0  # in a frame of which the rest is seen
    found_px, found = across_gaps(keypoints_px, confidence)
    expected_px, expected = _naive(keypoints_px, confidence)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found_px, expected_px)
    assert (found[[0, 1, 28, 29]] == 0).all()
    assert found[20, 6] == 0
    torch.testing.assert_close(found_px[13, 4], keypoints_px[16, 4])
    # Nothing is changed in place.
    assert (confidence[13] == 0).all()


@pytest.mark.parametrize("seen", [[], [3], list(range(9))])
def test_without_a_gap_all_stays_as_it_is(seen: list[int]) -> None:
    keypoints_px, confidence = _keypoints(9)
    confidence[[frame for frame in range(9) if frame not in seen]] = 0
    found_px, found = across_gaps(keypoints_px, confidence)
    assert torch.equal(found_px, keypoints_px)
    assert torch.equal(found, confidence)


def _without(track: Track, first: int, last: int) -> Track:
    kept = [i for i, frame in enumerate(track.frame_ids) if not first <= frame <= last]
    return Track(
        person_id=track.person_id,
        skeleton=track.skeleton,
        frame_ids=track.frame_ids[kept],
        keypoints_px=track.keypoints_px[kept],
        confidence=track.confidence[kept],
        fps=track.fps,
        image_size=(720, 1280),
    )


def _somebody(num_frames: int) -> Track:
    """Somebody who dances, or without the shared files a stick figure that slides across the picture."""
    if ALPHAPOSE.is_file():
        track = read_keypoints(ALPHAPOSE, image_size=(720, 1280)).tracks[0]
        return _without(track, num_frames, 10**6)
    place = {"pelvis": (0, 0), "spine": (0, -30), "thorax": (0, -60), "nose": (0, -75), "head": (0, -90)}
    for side, sign in (("left", 1), ("right", -1)):
        for joint, (x, y) in {
            "hip": (14, 0), "knee": (16, 50), "ankle": (16, 100),
            "shoulder": (20, -60), "elbow": (26, -30), "wrist": (28, 0),
        }.items():  # fmt: skip
            place[f"{side}_{joint}"] = (sign * x, y)
    figure = np.array([place[name] for name in H36M_17.joint_names], np.float32)
    across = np.linspace(400, 800, num_frames, dtype=np.float32)
    keypoints_px = 2 * figure + np.stack([across, np.full_like(across, 360)], axis=-1)[:, None]
    return Track(
        person_id="0",
        skeleton=H36M_17,
        frame_ids=np.arange(num_frames),
        keypoints_px=keypoints_px,
        confidence=np.full((num_frames, 17), 0.9, np.float32),
        fps=30.0,
        image_size=(720, 1280),
    )


def test_nobody_is_made_up_in_a_long_gap() -> None:
    """The shipped models turn nobody round who is not seen for two seconds."""
    track = _without(_somebody(220), 100, 159)
    device = torch.device("cpu")
    predictor = MeshPredictor.from_file(
        find_weights("shipped"),
        body=load_open_body("neutral"),
        regressor=load_open_body_regressor("h36m_17"),
        device=device,
    )
    root = predictor.recover(track).parameters.root_rotmat
    steps = geodesic_angle(root[1:], root[:-1])
    assert steps[101:158].max() < 0.2  # rad; 1.5 when nothing was shown through the gap
    model, clip = load_lifting_model(find_weights("shipped_lifting"))
    joints = lift_track(model, clip, track, mirror_test=True, device=device).joints
    assert (joints[102:158] - joints[101:157]).norm(dim=-1).max() < 0.06  # metres
