"""Windows cover a sequence, and blending gives it back."""

from itertools import pairwise

import pytest
import torch

from core.keypoints.windows import blend_rotation_windows, blend_weights, blend_windows, split_windows
from core.rotations import geodesic_angle, rotvec_to_rotmat

CASES = [
    (1, 27, 13),
    (27, 27, 13),
    (28, 27, 13),
    (100, 27, 13),
    (100, 27, 0),
    (100, 27, 26),
    (81, 27, 0),
    (5, 1, 0),
]


@pytest.mark.parametrize(("num_frames", "window", "overlap"), CASES)
def test_windows_cover_all_frames_with_their_overlap(num_frames, window, overlap):
    windows = split_windows(num_frames, window, overlap)
    assert windows[0].start == 0
    assert windows[-1].stop == num_frames
    for before, after in pairwise(windows):
        assert before.start < after.start
        assert before.stop - after.start >= overlap
    assert {w.stop - w.start for w in windows} == {min(window, num_frames)}


@pytest.mark.parametrize(("num_frames", "window", "overlap"), CASES)
def test_weights_are_a_partition_of_unity(num_frames, window, overlap):
    windows = split_windows(num_frames, window, overlap)
    total = torch.zeros(num_frames, dtype=torch.float64)
    for slice_, weight in zip(windows, blend_weights(windows, num_frames), strict=True):
        assert (weight > 0).all()
        total[slice_] += weight
    torch.testing.assert_close(total, torch.ones(num_frames, dtype=torch.float64))


@pytest.mark.parametrize(("num_frames", "window", "overlap"), CASES)
def test_blending_the_pieces_of_a_sequence_gives_the_sequence(num_frames, window, overlap):
    sequence, rotvec = torch.randn(num_frames, 4, 3), torch.randn(num_frames, 2, 3)
    windows = split_windows(num_frames, window, overlap)
    blended = blend_windows([sequence[w] for w in windows], windows, num_frames)
    torch.testing.assert_close(blended, sequence)
    rotmat = rotvec_to_rotmat(rotvec)
    blended = blend_rotation_windows([rotmat[w] for w in windows], windows, num_frames)
    torch.testing.assert_close(blended, rotmat, atol=1e-5, rtol=0)


def test_no_seam_where_windows_disagree():
    windows = split_windows(40, 27, 13)
    values = [torch.full((27,), float(i)) for i in range(len(windows))]
    blended = blend_windows(values, windows, 40)
    assert blended[0] == 0
    assert blended[-1] == len(windows) - 1
    assert blended.diff().abs().max() < 0.2


def test_disagreeing_rotations_blend_to_rotations_in_between():
    windows = split_windows(40, 27, 13)
    ends = [rotvec_to_rotmat(torch.tensor([0.0, 0.0, angle])).expand(27, 3, 3) for angle in (0.0, 1.0)]
    blended = blend_rotation_windows(ends, windows, 40)
    torch.testing.assert_close(blended @ blended.mT, torch.eye(3).expand(40, 3, 3))
    angle = geodesic_angle(ends[0][0].expand(40, 3, 3), blended)
    assert (angle.diff() > -1e-4).all()
    assert angle[0] < 1e-3
    assert abs(angle[-1] - 1) < 1e-3
    assert abs(angle[13:27].mean() - 0.5) < 0.02


@pytest.mark.parametrize(("num_frames", "window", "overlap"), [(0, 27, 13), (10, 27, 27), (10, 27, -1)])
def test_impossible_windows_are_refused(num_frames, window, overlap):
    with pytest.raises(ValueError, match=r"split into windows|does not fit"):
        split_windows(num_frames, window, overlap)


def test_uncovered_frames_are_refused():
    with pytest.raises(ValueError, match="do not cover"):
        blend_weights([slice(0, 3), slice(4, 6)], 6)
    with pytest.raises(ValueError, match="do not match"):
        blend_windows([torch.zeros(3)], [slice(0, 3), slice(3, 6)], 6)
