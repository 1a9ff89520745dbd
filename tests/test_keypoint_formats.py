"""The layouts of 2D keypoint files: the real ones, their oddities, and wrong ones."""

import json

import numpy as np
import pytest
from keypoint_fixtures import (
    KEYPOINTS,
    entry,
    gastnet,
    mediapipe_person,
    openpose_folder,
    openpose_frame,
    person_at,
    write,
)

from core.keypoints.files import read_keypoints
from core.skeleton import COCO_17, H36M_17, HALPE_26
from core.video import video_written_whole


@pytest.mark.skipif(not KEYPOINTS.is_dir(), reason="the shared keypoint files are not here")
def test_the_real_alphapose_file():
    file = read_keypoints(KEYPOINTS / "alphapose_halpe26.json")
    (track,) = file.tracks
    assert (file.report.format, file.report.skeleton) == ("alphapose", "halpe_26")
    assert (file.report.num_detections, file.report.num_frames, file.report.num_persons) == (810, 809, 1)
    assert file.report.doubles == (("0", 144),)
    assert file.report.missing_frames == {"0": 0}
    assert file.report.confidence_scale == 1
    assert file.report.num_clipped > 0
    assert track.frame_ids.tolist() == list(range(809))
    assert track.confidence.max() == 1
    assert track.keypoints_px.min() < 0
    # The better-scored of the two detections of frame 144 was kept.
    raw = [
        e
        for e in json.loads((KEYPOINTS / "alphapose_halpe26.json").read_text())
        if e["image_id"] == "144.jpg"
    ]
    best = max(raw, key=lambda e: e["score"])
    np.testing.assert_allclose(
        track.keypoints_px[144].ravel(), np.delete(best["keypoints"], slice(2, None, 3)), 1e-6
    )
    converted = track.to_skeleton(H36M_17)
    assert converted.missing_joints == ()
    assert "1 doubles resolved" in str(file.report)


@pytest.mark.skipif(not KEYPOINTS.is_dir(), reason="the shared keypoint files are not here")
def test_the_real_mediapipe_files():
    tracks, report = read_keypoints(KEYPOINTS / "blazepose33_stills.csv")
    assert (report.format, report.skeleton, report.num_persons) == ("mediapipe", "blazepose_33", 812)
    assert tracks[0].person_id == "Screenshot_2021-02-11_at_12.43.07"
    np.testing.assert_allclose(tracks[0].keypoints_px[0, 0], [1251.0012, 384.75177], rtol=1e-6)
    assert (tracks[0].confidence == 1).all()
    path = KEYPOINTS / "mediapipe_pose_landmarks.pbtxt"
    (track,) = read_keypoints(path, image_size=[667, 1000]).tracks
    np.testing.assert_allclose(track.keypoints_px[0, 0], [465.07242, 0.41610304 * 667], rtol=1e-6)
    assert track.confidence[0, 0] == pytest.approx(0.99998844)
    assert track.to_skeleton(H36M_17).missing_joints == ()
    with pytest.raises(ValueError, match=r"are shares of the picture's width and height; give image_size"):
        read_keypoints(path)


@pytest.mark.parametrize(("count", "skeleton"), [(133, COCO_17), (136, HALPE_26)])
def test_alphapose_with_faces_and_hands(tmp_path, count, skeleton):
    (track,), report = read_keypoints(write(tmp_path, [entry("3.jpg", num_joints=count)]))
    assert (report.format, track.skeleton) == ("alphapose", skeleton)
    (body,), _ = read_keypoints(write(tmp_path, [entry("3.jpg", num_joints=skeleton.num_joints)]))
    np.testing.assert_array_equal(track.keypoints_px, body.keypoints_px)


def test_alphapose_with_a_file_per_picture(tmp_path):
    """Its --separate_json; pictures without anybody have an empty list."""
    folder = tmp_path / "sep-json"
    folder.mkdir()
    for name, entries in (
        ("7", []),
        ("8", [entry("8.jpg"), entry("8.jpg", 300.0)]),
        ("10", [entry("10.jpg")]),
    ):
        (folder / f"{name}.json").write_text(json.dumps(entries))
    tracks, report = read_keypoints(folder)
    assert (report.format, report.num_detections) == ("alphapose", 3)
    assert tracks[0].frame_ids.tolist() == [8, 10]
    (folder / "9.json").write_text("{}")
    with pytest.raises(ValueError, match=r"its file 9.json is no list of entries with image_id"):
        read_keypoints(folder)


def test_stills_of_one_name_are_several(tmp_path):
    numbers = ",".join(["10"] * 99)
    stills = ("up/1.jpg,up", "down/1.jpg,down", "a.png,up", "b.png,up", "b.png,up", "C:\\stills\\c.png,up")
    rows = [f"{still},{numbers}" for still in stills]
    (tmp_path / "a.csv").write_text("\ufeff" + "\n".join(rows) + "\n\n", encoding="utf-8")
    tracks, report = read_keypoints(tmp_path / "a.csv")
    assert sorted(track.person_id for track in tracks) == ["1_down", "1_up", "a", "b_up_4", "b_up_5", "c"]
    assert not report.doubles


def test_mediapipe_videos(tmp_path):
    """Frames without anybody keep their places; several people of a frame are told apart by place."""
    one = write(tmp_path, [[], None, mediapipe_person(), mediapipe_person(0.51), [], mediapipe_person(0.52)])
    (track,), report = read_keypoints(one, image_size=[400, 200], fps=25)
    assert (report.format, track.frame_ids.tolist(), track.fps) == ("mediapipe", [2, 3, 5], 25.0)
    np.testing.assert_allclose(track.keypoints_px[1, 32], [0.51 * 200, 0.8 * 400], rtol=1e-6)
    assert track.image_size == (400, 200)
    two = write(tmp_path, [[mediapipe_person(0.1), mediapipe_person(0.9)] for _ in range(3)])
    tracks, _ = read_keypoints(two, image_size=[400, 200])
    assert [track.num_frames for track in tracks] == [3, 3]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([mediapipe_person()[:5]], "frame 0 has a person of 5 landmarks, not 33"),
        ([[], [mediapipe_person(), 3]], "frame 1 has a person of 0 landmarks, not 33"),
        ([mediapipe_person(), 7], "frame 1 is a int, not a list of landmarks"),
        ([[{"x": 0.1, "y": 0.1, "visibility": 1.0}, *([{}] * 32)]], "a landmark without x, y or visibility"),
        ([[{"x": "0.1", "y": 0.1, "visibility": 1.0}] * 33], "are not all numbers"),
    ],
)
def test_mediapipe_files_that_are_wrong(tmp_path, content, problem):
    with pytest.raises(ValueError, match=problem):
        read_keypoints(write(tmp_path, content), image_size=[400, 200])


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "", "it holds no detection"),
        ("a.csv", "a.png,x,1,2\n", "its row 1 has 4 columns, and tables of landmarks have 101"),
        ("a.csv", "a.png,x," + ",".join(["1"] * 98 + ["one"]), "it is not a table of landmarks"),
        ("a.csv", "a.png,x," + ",".join(["1"] * 98 + ["nan"]), "not finite"),
        ("a.pbtxt", "", "no person was detected in any frame"),
        ("a.pbtxt", "landmarks {\n  landmark {\n    x: left\n", "its line 3 is not of a result of landmarks"),
        ("a.pbtxt", "}\n", "its line 1 is not of a result of landmarks"),
        ("a.pbtxt", "landmarks {\n  landmark {\n    x: 0.5\n  }\n}", "no known format"),
    ],
)
def test_mediapipe_texts_that_are_wrong(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=rf"Cannot read keypoints from .*{name}: .*({problem})"):
        read_keypoints(tmp_path / name, image_size=[400, 200])
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=rf"Cannot read keypoints from .*{name}: "):
        read_keypoints(tmp_path / name, image_size=[400, 200])


@pytest.mark.skipif(not KEYPOINTS.is_dir(), reason="the shared keypoint files are not here")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openpose_body25_a", ("openpose", "body_25", 81, 0)),
        ("openpose_body25_b", ("openpose", "body_25", 350, 0)),
        ("openpose_body25_a/20_000000000003_keypoints.json", ("openpose", "body_25", 1, 0)),
        ("gastnet_coco17.json", ("gastnet", "coco_17", 277, 0)),
    ],
)
def test_the_real_files_of_other_detectors(name, expected):
    file = read_keypoints(KEYPOINTS / name)
    (track,) = file.tracks
    assert (file.report.format, file.report.skeleton, track.num_frames, track.frame_ids[0]) == expected
    assert not track.gaps
    converted = track.to_skeleton(H36M_17)
    assert converted.missing_joints == ()
    # A person stands upright in the picture: y points down, the head is above the hips and those above the ankles.
    heights = {
        joint: np.median(
            converted.track.keypoints_px[:, H36M_17.index(joint), 1][
                converted.track.confidence[:, H36M_17.index(joint)] > 0.3
            ]
        )
        for joint in ("head", "left_hip", "left_ankle")
    }
    assert heights["head"] < heights["left_hip"] < heights["left_ankle"]


def test_openpose_frames_without_people_are_gaps_and_zeros_are_unseen(tmp_path):
    person = person_at(50)
    person[3:6] = [0.0, 0.0, 0.0]
    folder = openpose_folder(
        tmp_path,
        [openpose_frame(person), openpose_frame(), openpose_frame([0.0] * 75), openpose_frame(person)],
    )
    (track,), report = read_keypoints(folder)
    assert track.frame_ids.tolist() == [0, 3]
    assert track.gaps == ((1, 2),)
    assert track.confidence[:, 1].tolist() == [0, 0]
    assert report.num_detections == 2


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (openpose_frame([1.0] * 74), r"person 0 of clip7_0+1_keypoints\.json has 74 values"),
        (openpose_frame(person_at(0, num_joints=18)), "the same throughout"),
        ({"people": {}}, "has no list of people"),
        (openpose_frame(person_at(float("nan"))), "not finite"),
        ("{", "is not JSON"),
    ],
)
def test_openpose_folders_that_are_wrong_name_the_file(tmp_path, frame, problem):
    folder = openpose_folder(tmp_path, [openpose_frame(person_at(0)), frame])
    if frame == "{":
        (folder / "clip7_000000000001_keypoints.json").write_text("{")
    with pytest.raises(ValueError, match=problem):
        read_keypoints(folder)


def test_frames_are_counted_from_0(tmp_path):
    """Whatever the file gives the video's first frame."""
    named = write(tmp_path, [entry("img_0003.png"), entry("img_0005.png")])
    for counts_from, expected in ((None, [3, 5]), (0, [3, 5]), (1, [2, 4]), (3, [0, 2])):
        assert read_keypoints(named, counts_from=counts_from).tracks[0].frame_ids.tolist() == expected
    with pytest.raises(
        ValueError, match="has a frame 3, and frame 4 is taken for the video's first; give counts_from"
    ):
        read_keypoints(named, counts_from=4)
    with pytest.raises(ValueError, match="counts_from must be a whole number of at least 0, or null, not -1"):
        read_keypoints(named, counts_from=-1)
    assert read_keypoints(write(tmp_path, gastnet()), counts_from=0).tracks[0].frame_ids.tolist() == [1, 2, 3]


def test_the_video_says_what_the_file_does_not(tmp_path):
    video = tmp_path / "in.mp4"
    with video_written_whole(video, fps=24.0, image_size=(480, 640)) as add:
        for _ in range(5):
            add(np.zeros((480, 640, 3), np.uint8))
    keypoints = write(tmp_path, [entry("3.jpg"), entry("4.jpg")])
    (track,) = read_keypoints(keypoints, video=video).tracks
    assert (track.fps, track.image_size) == (24.0, (480, 640))
    assert "while the video plays" not in str(read_keypoints(keypoints, video=video).report)
    slow = read_keypoints(keypoints, video=video, fps=12)
    assert slow.tracks[0].fps == 12.0
    assert "12 frames a second, while the video plays at 24" in str(slow.report)
    with pytest.raises(
        ValueError, match=r"in\.mp4 is 640 × 480 pixels, and .*detections\.json is for pictures of"
    ):
        read_keypoints(keypoints, video=video, image_size=(640, 480))
    with video_written_whole(small := tmp_path / "small.mp4", fps=24.0, image_size=(180, 120)) as add:
        for _ in range(5):
            add(np.zeros((180, 120, 3), np.uint8))
    with pytest.raises(
        ValueError, match=r"detections\.json: \d+ % of its keypoints lie outside pictures of 180"
    ):
        read_keypoints(keypoints, video=small)
    with pytest.raises(ValueError, match=r"in\.mp4 has 5 frames, 0 to 4, and .*detections\.json goes to 5"):
        read_keypoints(write(tmp_path, [entry("5.jpg")]), video=video)


@pytest.mark.parametrize(
    ("person", "problem"),
    [
        ({"pose": [[0.0, 1.0]]}, "without a pose of 17 joints"),
        ({"score": [0.5]}, "without 17 scores"),
        ({"score": ["a"] * 17}, "not all numbers"),
        ({"pose": [[0.0]] * 17}, "2 numbers are needed"),
    ],
)
def test_gastnet_files_that_are_wrong(tmp_path, person, problem):
    assert read_keypoints(write(tmp_path, gastnet())).tracks[0].frame_ids.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=problem):
        read_keypoints(write(tmp_path, gastnet(**person)))
