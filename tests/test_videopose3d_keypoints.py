"""What VideoPose3D's Detectron scripts leave of a video, and what it makes of that."""

import numpy as np
import pytest

from core.keypoints.files import read_keypoints
from core.skeleton import COCO_17


def objects(values):
    """An array of objects, as numpy made of ragged lists when those scripts were written."""
    array = np.empty((len(values), len(values[0])), dtype=object)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            array[i, j] = value
    return array


def person(x, num_joints=17):
    """(4, 17): x, y, a dummy, score."""
    joints = np.arange(num_joints, dtype=np.float32)
    return np.stack([x + 5 * joints, 100 + 8 * joints, 0 * joints, 0.9 - 0.01 * joints])


def of_video(path, frames, **changes):
    """As infer_video_d2.py writes one: `frames` are lists of (x, score of the box)."""
    boxes = [
        [[], np.array([[x, 100, x + 80, 230, score] for x, score in people], np.float32) if people else []]
        for people in frames
    ]
    keypoints = [[[], np.stack([person(x) for x, _ in people]) if people else []] for people in frames]
    arrays = {
        "boxes": objects(boxes),
        "segments": np.array([None] * len(frames)),
        "keypoints": objects(keypoints),
        "metadata": np.array({"w": 640, "h": 480}),
    }
    np.savez_compressed(path, **arrays | changes)
    return path


def of_data_set(path, positions, **metadata):
    np.savez_compressed(
        path,
        positions_2d=np.array(positions, dtype=object),
        metadata=np.array({"layout_name": "coco", "num_joints": 17} | metadata, dtype=object),
    )
    return path


def test_detectrons_file_of_a_video(tmp_path):
    # Nobody is seen in frame 1; somebody else in the last two.
    frames = [[(50.0, 0.99)], [], [(52.0, 0.98)], [(300.0, 0.8), (54.0, 0.97)], [(55.0, 0.7), (301.0, 0.8)]]
    tracks, report = read_keypoints(of_video(tmp_path / "clip.mp4.npz", frames), fps=25)
    assert (report.format, report.video_name, report.num_persons) == ("videopose3d", "clip.mp4", 2)
    track = tracks[0]
    assert (track.skeleton, track.image_size, track.fps) == (COCO_17, (480, 640), 25.0)
    assert track.frame_ids.tolist() == [0, 2, 3, 4]
    np.testing.assert_allclose(
        track.keypoints_px, np.stack([person(x)[:2].T for x in (50.0, 52.0, 54.0, 55.0)])
    )
    np.testing.assert_allclose(track.confidence[0], person(0.0)[3], atol=1e-6)
    np.testing.assert_allclose(tracks[1].keypoints_px[1], person(301.0)[:2].T)


def test_lists_of_people_as_the_older_detectron_writes_them(tmp_path):
    keypoints = objects([[[], [person(50.0)]], [[], [person(51.0)]]])
    path = of_video(tmp_path / "old.npz", [[(50.0, 0.9)], [(51.0, 0.9)]], keypoints=keypoints)
    np.testing.assert_allclose(read_keypoints(path).tracks[0].keypoints_px[1], person(51.0)[:2].T)


def test_a_data_set_of_one_video(tmp_path):
    places = np.stack([person(x)[:2].T for x in (50.0, 51.0, 52.0)]).astype(np.float32)
    of_one = {"dance.mp4": {"custom": [places]}}
    path = of_data_set(tmp_path / "a.npz", of_one, video_metadata={"dance.mp4": {"w": 640, "h": 480}})
    (track,), report = read_keypoints(path)
    assert (report.video_name, track.image_size) == ("dance.mp4", (480, 640))
    np.testing.assert_array_equal(track.keypoints_px, places)
    assert (track.confidence == 1).all()
    assert read_keypoints(of_data_set(tmp_path / "b.npz", of_one)).tracks[0].image_size is None


@pytest.mark.parametrize(
    ("positions", "problem"),
    [
        (
            {"a": {"custom": [np.zeros((2, 17, 2))]}, "b": {"custom": [np.zeros((2, 17, 2))]}},
            r"of 2 videos \(a, b\)",
        ),
        ({"S1": {"Walking": [np.zeros((2, 17, 2))]}}, "which tools/prepare_data.py takes"),
        ({"a": {"custom": [np.zeros((2, 16, 2))]}}, r"keypoints of 'a' are of shape \(2, 16, 2\)"),
        ({"a": {"custom": [np.full((2, 17, 2), np.nan)]}}, "not finite"),
        ({"a": {"custom": []}}, "'a' is not one sequence"),
        ({}, "no table of videos"),
    ],
)
def test_a_data_set_that_is_no_video_is_refused(tmp_path, positions, problem):
    with pytest.raises(ValueError, match=rf"Cannot read keypoints from .*a\.npz: .*{problem}"):
        read_keypoints(of_data_set(tmp_path / "a.npz", positions))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"keypoints": objects([[[], [person(50.0, 16)]]])},
            r"keypoints of frame 0 are of shape \(1, 4, 16\)",
        ),
        ({"keypoints": objects([[[], [person(50.0), person(60.0)]]])}, "1 boxes and 2 people's"),
        ({"keypoints": objects([[[], [[1.0], [2.0, 3.0]]]])}, "not numbers of one shape"),
        ({"keypoints": np.array([None])}, "not a pair"),
        ({"keypoints": objects([[[], None]])}, "no list of people"),
        ({"boxes": objects([[[], []], [[], []]])}, "boxes of 2 frames and keypoints of 1"),
        ({"metadata": np.array({"w": 640, "h": "480"})}, "width and height are 640 and '480'"),
    ],
)
def test_a_file_of_a_video_that_is_broken_is_refused(tmp_path, changes, problem):
    with pytest.raises(ValueError, match=rf"Cannot read keypoints from .*a\.npz: .*{problem}"):
        read_keypoints(of_video(tmp_path / "a.npz", [[(50.0, 0.9)]], **changes))


class _Program:
    def __reduce__(self):
        return print, ("executed",)


def test_what_an_array_of_objects_asks_for_is_not_done(tmp_path, capsys):
    """numpy writes arrays of objects as pickles, and a pickle is a program."""
    path = of_video(tmp_path / "a.npz", [[(50.0, 0.9)]], metadata=np.array(_Program(), dtype=object))
    with pytest.raises(ValueError, match=r"a\.npz: its array 'metadata' .*builtins.print"):
        read_keypoints(path)
    assert capsys.readouterr().out == ""
