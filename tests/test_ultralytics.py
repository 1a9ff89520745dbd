"""What Ultralytics' YOLO pose models leave: labels and summaries."""

import numpy as np
import pytest
from keypoint_fixtures import (
    write,
    yolo_keypoints,
    yolo_label,
    yolo_labels,
    yolo_summary,
)

from core.keypoints.files import read_keypoints
from core.skeleton import COCO_17
from core.video import video_written_whole


@pytest.mark.parametrize(
    ("tails", "people"),
    [
        (((), ()), {"0", "0-2"}),  # told apart by place
        (((0.9,), (0.25,)), {"0", "0-2"}),  # save_conf=True
        (((1.0,), (0.25,)), {"0", "0-2"}),  # … and one is certain, which is no track's number
        (((1,), (2,)), {"1", "2"}),  # tracked
        (((0.9, 1), (1, 2)), {"1", "2"}),  # both
    ],
)
def test_yolo_labels_of_a_video(tmp_path, tails, people):
    lines = [yolo_label(0, *tails[0]), yolo_label(300, *tails[1])]
    # Frames count from 1, and one in which nobody was seen has no file.
    folder = yolo_labels(tmp_path / "labels", dict.fromkeys((1, 2, 4, 10), lines))
    tracks, report = read_keypoints(folder, image_size=(480, 640))
    assert (report.format, report.video_name) == ("ultralytics", "video")
    assert {track.person_id for track in tracks} == people
    for track, x in zip(sorted(tracks, key=lambda track: track.person_id), (0.0, 300.0), strict=True):
        assert track.skeleton is COCO_17
        assert track.frame_ids.tolist() == [0, 1, 3, 9]
        expected = np.array(yolo_keypoints(x))
        np.testing.assert_allclose(track.keypoints_px, np.tile(expected[:, :2], (4, 1, 1)), atol=1e-3)
        np.testing.assert_allclose(track.confidence, np.tile(expected[:, 2], (4, 1)), atol=1e-6)


def test_yolo_labels_of_pictures_keep_the_pictures_numbers(tmp_path):
    size = {"image_size": (480, 640)}
    padded = yolo_labels(tmp_path / "a", {"0007": [yolo_label()], "0010": [yolo_label()]}, name="img_{}")
    assert read_keypoints(padded, **size).tracks[0].frame_ids.tolist() == [7, 10]
    assert read_keypoints(padded, counts_from=1, **size).tracks[0].frame_ids.tolist() == [6, 9]
    from_0 = yolo_labels(tmp_path / "b", {0: [yolo_label()], 1: [yolo_label()]})
    assert read_keypoints(from_0, **size).tracks[0].frame_ids.tolist() == [0, 1]
    one = yolo_labels(tmp_path / "c", {"": [yolo_label()]}, name="bus") / "bus.txt"
    assert read_keypoints(one, **size).tracks[0].frame_ids.tolist() == [0]
    # Somebody who was seen in one frame of a video was seen in that one.
    once = yolo_labels(tmp_path / "d", {7: [yolo_label()]})
    for path in (once, once / "video_7.txt"):
        assert read_keypoints(path, **size).tracks[0].frame_ids.tolist() == [6]


def test_a_yolo_keypoint_in_the_corner_is_unseen(tmp_path):
    """Versions before move those below half a confidence there, and keep the confidence."""
    values = yolo_label().split(" ")
    values[5:8] = ["0", "0", "0.45"]
    folder = yolo_labels(tmp_path / "labels", {1: [" ".join(values)], 2: [yolo_label()]})
    (track,), _ = read_keypoints(folder, image_size=(480, 640))
    assert track.confidence[:, 0].tolist() == pytest.approx([0.0, 0.2])


@pytest.mark.parametrize(
    ("frames", "name", "problem"),
    [
        ({1: ["0 0.5"]}, "v_{}", r"line 1 of v_1\.txt has 2 numbers, and of a person in COCO-17 .* write 56"),
        ({1: [yolo_label(), yolo_label() + " a"]}, "v_{}", r"line 2 of v_1\.txt does not hold numbers alone"),
        (
            {1: [yolo_label().replace(" 0.6 ", " nan ")]},
            "v_{}",
            r"v_1\.txt hold values that are not finite",
        ),
        (
            {"a_1": [yolo_label()], "b_1": [yolo_label()]},
            "{}",
            "of several videos or pictures, 'a_' and 'b_'",
        ),
        ({1: [yolo_label(0, 0.9, 1.5e300)]}, "v_{}", "beyond a million"),
        ({1: [], 2: []}, "v_{}", "it holds no detection"),
    ],
)
def test_yolo_labels_that_are_wrong(tmp_path, frames, name, problem):
    folder = yolo_labels(tmp_path / "labels", frames, name)
    with pytest.raises(ValueError, match=problem):
        read_keypoints(folder, image_size=(480, 640))


def test_yolo_labels_need_the_pictures_size_and_their_own_folder(tmp_path):
    folder = yolo_labels(tmp_path / "predict" / "labels", {1: [yolo_label()], 2: [yolo_label()]})
    with pytest.raises(
        ValueError, match=r"give image_size=\[height,width\], or the video that they are from"
    ):
        read_keypoints(folder)
    with pytest.raises(ValueError, match=r"without Ultralytics' labels .*; you may mean its folder labels"):
        read_keypoints(folder.parent)
    with pytest.raises(ValueError, match=r"AlphaPose writes a list .* but it holds Ultralytics' labels"):
        read_keypoints(folder, format="alphapose")
    with video_written_whole(video := tmp_path / "in.mp4", fps=24.0, image_size=(480, 640)) as add:
        for _ in range(2):
            add(np.zeros((480, 640, 3), np.uint8))
    (track,) = read_keypoints(folder, video=video).tracks
    assert (track.fps, track.frame_ids.tolist()) == (24.0, [0, 1])


def test_yolo_summaries(tmp_path):
    people = [yolo_summary(0, track_id=3), yolo_summary(300, track_id=5)]
    tracks, report = read_keypoints(write(tmp_path, [[], people, [], people]))
    assert (report.format, report.video_name) == ("ultralytics", "detections")
    assert {track.person_id: track.frame_ids.tolist() for track in tracks} == {"3": [1, 3], "5": [1, 3]}
    np.testing.assert_allclose(tracks[0].keypoints_px[0], np.array(yolo_keypoints())[:, :2])
    # Of one picture, by a model whose keypoints have no confidence.
    (track,), _ = read_keypoints(
        write(tmp_path, [yolo_summary(keypoints={k: yolo_summary()["keypoints"][k] for k in "xy"})])
    )
    assert track.frame_ids.tolist() == [0]
    assert (track.confidence == 1).all()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([[yolo_summary()], [{"name": "person"}]], "frame 1 has a person without keypoints x and y"),
        ([[yolo_summary()], {"name": "person"}], "frame 1 is a dict, not a list of people"),
        ([[yolo_summary(keypoints={"x": [1.0], "y": [1.0]})]], "person of 1 keypoints, and those of COCO-17"),
        ([[yolo_summary(confidence="high")]], "confidence in frame 0 are not all numbers"),
        ([[yolo_summary(keypoints=yolo_summary()["keypoints"] | {"y": None})]], "keypoints' y in frame 0"),
    ],
)
def test_yolo_summaries_that_are_wrong(tmp_path, content, problem):
    with pytest.raises(ValueError, match=problem):
        read_keypoints(write(tmp_path, content))
