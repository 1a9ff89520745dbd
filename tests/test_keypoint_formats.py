"""The layouts of 2D keypoint files: the real ones, their oddities, and wrong ones."""

import json

import numpy as np
import pytest
from keypoint_fixtures import (
    KEYPOINTS,
    descending_scores,
    entry,
    gastnet,
    javascript_person,
    mediapipe_person,
    mmpose,
    mmpose_person,
    openpose_folder,
    openpose_frame,
    person_at,
    person_with_scores,
    write,
    yolo_keypoints,
    yolo_label,
    yolo_labels,
    yolo_summary,
)

from core.keypoints.files import read_keypoints
from core.skeleton import BLAZEPOSE_33, COCO_17, H36M_17, HALPE_26
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


def test_mmpose_files_of_both_kinds(tmp_path):
    names = {"0": "nose", "1": "left_eye"}
    for content in (
        mmpose(),
        # Its demo programs count from 1.
        {"meta_info": {"keypoint_id2name": names}, "instance_info": mmpose(first_frame=1)},
        {"meta_info": {}, "instance_info": mmpose()},
    ):
        (track,), report = read_keypoints(write(tmp_path, content))
        assert report.format == "mmpose"
        assert track.skeleton is COCO_17
        assert track.frame_ids.tolist() == [0, 1, 2]
        np.testing.assert_array_equal(track.keypoints_px[1, 3], [30, 60])
        np.testing.assert_allclose(track.confidence[2], descending_scores(), atol=1e-6)


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
    assert read_keypoints(keypoints, video=video, fps=12).tracks[0].fps == 12.0
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


def test_mmpose_skeletons_by_the_number_of_keypoints(tmp_path):
    for count, skeleton in ((17, COCO_17), (26, HALPE_26), (133, COCO_17)):
        (track,), _ = read_keypoints(write(tmp_path, mmpose(mmpose_person(count))))
        assert track.skeleton is skeleton
        assert track.keypoints_px.shape == (3, skeleton.num_joints, 2)
        np.testing.assert_array_equal(track.keypoints_px[0, 16], [160, 320])
    # Sapiens': hips, knees and ankles follow the elbows, and wrists are the hands' last.
    (track,), _ = read_keypoints(write(tmp_path, mmpose(mmpose_person(308))))
    assert track.skeleton is COCO_17
    expected = [*range(9), 62, 41, *range(9, 15)]
    np.testing.assert_array_equal(track.keypoints_px[0, :, 0], 10.0 * np.array(expected))


def test_mmpose_pictures(tmp_path):
    """A file for each, by `MMPoseInferencer` its people, by demo programs (and Sapiens) with facts beside."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    pictures = [[], [mmpose_person()], {"meta_info": {}, "instance_info": [mmpose_person(x=5.0)]}]
    for number, people in zip((3, 4, 7), pictures, strict=True):
        (folder / f"img_{number:04}.json").write_text(json.dumps(people))
    (track,), report = read_keypoints(folder)
    assert (report.format, track.skeleton) == ("mmpose", COCO_17)
    assert track.frame_ids.tolist() == [4, 7]
    np.testing.assert_array_equal(track.keypoints_px[:, 3], [[30, 60], [35, 60]])
    for picture in pictures[1:]:
        assert read_keypoints(write(tmp_path, picture)).tracks[0].frame_ids.tolist() == [0]
    (folder / "img_0008.json").write_text("5")
    with pytest.raises(ValueError, match=r"its file img_0008\.json lacks frame_id or instances"):
        read_keypoints(folder)
    (folder / "img_0008.json").write_text(json.dumps([mmpose_person(21)]))
    with pytest.raises(ValueError, match=r"its file img_0008\.json has a person of 21 keypoints"):
        read_keypoints(folder)


def test_mmpose_people_are_told_apart(tmp_path):
    by_place, report = read_keypoints(write(tmp_path, mmpose(mmpose_person(), mmpose_person(x=900.0))))
    assert len(by_place) == report.num_persons == 2
    by_id = read_keypoints(
        write(tmp_path, mmpose(mmpose_person(track_id=4), mmpose_person(x=900.0, track_id=7)))
    ).tracks
    assert {track.person_id for track in by_id} == {"4", "7"}
    nobody = [{"frame_id": 0, "instances": []}, *mmpose(first_frame=1)]
    assert read_keypoints(write(tmp_path, nobody)).tracks[0].frame_ids.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (mmpose(mmpose_person(21)), "frame 0 has a person of 21 keypoints, and COCO-17, Halpe-26"),
        (
            mmpose(mmpose_person(), mmpose_person(26)),
            "frame 0 has a person of 26 keypoints.*the same throughout",
        ),
        ([*mmpose(), {"frame_id": 3}], "frame 3 lacks frame_id or instances"),
        (mmpose(mmpose_person(keypoint_scores=[1.0])), "keypoint_scores in frame 0 are 1 values, and 17"),
        (mmpose(mmpose_person(keypoints=[[1.0, 2.0, 3.0]] * 17)), "keypoint in frame 0 are 3 values, and 2"),
        (mmpose(mmpose_person(bbox_score="high")), "bbox_score in frame 0 are not all numbers"),
        (mmpose(5), "frame 0 has a person of 0 keypoints"),
        (
            {"meta_info": {"keypoint_id2name": {"0": "root"}}, "instance_info": mmpose()},
            "its keypoints begin with 'root'",
        ),
    ],
)
def test_mmpose_files_that_are_wrong(tmp_path, content, problem):
    with pytest.raises(ValueError, match=problem):
        read_keypoints(write(tmp_path, content))


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


def test_people_with_scores(tmp_path):
    """By transformers or rtmlib: the user's own list, an entry per frame."""
    for count, skeleton in ((17, COCO_17), (26, HALPE_26), (133, COCO_17)):
        (track,), report = read_keypoints(write(tmp_path, [[], [person_with_scores(count)], []]))
        assert report.format == "people"
        assert track.skeleton is skeleton
        assert track.frame_ids.tolist() == [1]
        np.testing.assert_array_equal(track.keypoints_px[0, 16], [160, 320])
        np.testing.assert_allclose(track.confidence[0, :17], descending_scores(), atol=1e-6)
    tracked = [person_with_scores(track_id=4), person_with_scores(track_id=7)]
    assert {track.person_id for track in read_keypoints(write(tmp_path, [tracked])).tracks} == {"4", "7"}


@pytest.mark.parametrize(
    ("num_joints", "score", "skeleton"),
    [(17, "score", COCO_17), (33, "score", BLAZEPOSE_33), (17, "confidence", COCO_17)],
)
def test_people_of_javascript(tmp_path, num_joints, score, skeleton):
    """By TensorFlow.js or ml5: keypoints that say x, y, score and name."""
    people = [javascript_person(num_joints, score=score, x=x, id=1 + (x > 0)) for x in (0.0, 400.0)]
    tracks, report = read_keypoints(write(tmp_path, [[], people, people[1:]]))
    assert (report.format, tracks[0].skeleton) == ("people", skeleton)
    assert {track.person_id: track.frame_ids.tolist() for track in tracks} == {"1": [1], "2": [1, 2]}
    np.testing.assert_array_equal(tracks[0].keypoints_px[1, :, 0], 400 + 10 * np.arange(num_joints))
    np.testing.assert_allclose(tracks[0].confidence[0], descending_scores(num_joints), atol=1e-6)
    (track,), _ = read_keypoints(write(tmp_path, people[:1]))  # of one picture
    assert track.frame_ids.tolist() == [0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ([[person_with_scores(12)]], "frame 0 has a person of 12 keypoints, and COCO-17"),
        (
            [[person_with_scores()], [person_with_scores(26)]],
            "frame 1 has a person of 26 .* the same throughout",
        ),
        ([[person_with_scores()], [5]], "frame 1 is no list of people"),
        ([[person_with_scores(scores=[0.5])]], "scores in frame 0 are 1 values, and 17"),
        ([[person_with_scores(keypoints=[[1.0]] * 17)]], "keypoint in frame 0 are 1 values, and 2"),
        (
            [[javascript_person(keypoints=[{"x": 1, "y": 2, "score": 0.5}, {"x": 1, "y": 2}])]],
            "frame 0 has a keypoint without x, y and score",
        ),
        ([[javascript_person(keypoints=[{"x": 1, "y": 2}] * 17)]], "a keypoint without x, y and score"),
        (
            [[javascript_person(keypoints=[{"x": 1, "y": 2, "score": 1, "name": "neck"}] * 17)]],
            "its keypoints begin with 'neck'",
        ),
    ],
)
def test_people_with_scores_that_are_wrong(tmp_path, content, problem):
    with pytest.raises(ValueError, match=problem):
        read_keypoints(write(tmp_path, content))
