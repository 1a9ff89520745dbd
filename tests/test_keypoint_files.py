"""Keypoint files: the real ones, the layouts with their oddities, and broken ones."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.keypoints import formats
from core.keypoints.files import read_keypoints, write_keypoints_npz
from core.skeleton import COCO_17, H36M_17, HALPE_26

KEYPOINTS = Path(__file__).resolve().parents[1].parent / "shared" / "keypoints"


def entry(image_id="0.jpg", value=0.5, num_joints=26, **more):
    keypoints = [float(x) for joint in range(num_joints) for x in (10 * joint + value, 20 * joint, value)]
    return {"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": 2.0, "idx": [0.0]} | more


def write(tmp_path, content) -> Path:
    path = tmp_path / "detections.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


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


def test_stills_of_one_name_are_several(tmp_path):
    numbers = ",".join(["10"] * 99)
    rows = [
        f"{name},{numbers}" for name in ("up/1.jpg,up", "down/1.jpg,down", "a.png,up", "b.png,up", "b.png,up")
    ]
    (tmp_path / "a.csv").write_text("\ufeff" + "\n".join(rows) + "\n\n", encoding="utf-8")
    tracks, report = read_keypoints(tmp_path / "a.csv")
    assert sorted(track.person_id for track in tracks) == ["1_down", "1_up", "a", "b_up_4", "b_up_5"]
    assert not report.doubles


def mediapipe_person(x=0.5):
    return [{"x": x, "y": joint / 40, "z": 0.0, "visibility": 0.9} for joint in range(33)]


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
        ("a.pbtxt", "", "it holds no detection|no known format"),
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
        ("gastnet_coco17.json", ("gastnet", "coco_17", 277, 1)),
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


def openpose_frame(*people, **more):
    return {
        "version": 1.2,
        "people": [{"pose_keypoints_2d": person, "person_id": [-1]} | more for person in people],
    }


def openpose_folder(tmp_path, frames) -> Path:
    folder = tmp_path / "clip"
    folder.mkdir()
    for number, frame in enumerate(frames):
        (folder / f"clip7_{number:012}_keypoints.json").write_text(json.dumps(frame))
    return folder


def person_at(x, num_joints=25, confidence=0.5):
    return [float(v) for j in range(num_joints) for v in (x + 3 * (j % 5), 100 + 8 * j, confidence)]


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


def test_people_without_ids_are_told_apart_by_where_they_are(tmp_path):
    """Two people approach, listed in any order; a third comes late; one is missed for a while."""
    frames = []
    for k in range(40):
        left, right = person_at(100 + 2 * k), person_at(600 - 3 * k)
        people = [right, left] if k % 3 else [left, right]
        if 10 <= k < 15:
            people.remove(left)
        if k >= 30:
            people.append(person_at(1000))
        frames.append(openpose_frame(*people))
    tracks, report = read_keypoints(openpose_folder(tmp_path, frames))
    assert report.shared_ids == ("0",)
    assert "people with the same id (0) told apart by place" in str(report)
    assert sorted(track.num_frames for track in tracks) == [10, 35, 40]
    for track in tracks:
        assert np.abs(np.diff(track.keypoints_px[:, 0, 0], n=1)).max() <= 12  # nobody jumps
        assert track.person_id in ("0", "0-2", "0-3")


def test_two_people_in_one_picture(tmp_path):
    tracks, report = read_keypoints(
        openpose_folder(tmp_path, [openpose_frame(person_at(100), person_at(900))])
    )
    assert sorted(track.keypoints_px[0, 0, 0] for track in tracks) == sorted(
        np.float32(person[0]) for person in (person_at(100), person_at(900))
    )
    assert not report.doubles


def test_one_persons_doubles_and_slips_are_no_people(tmp_path):
    entries = [entry(f"{k}.jpg", 0.5, score=2.0) for k in range(300)]
    entries += [entry(f"{k}.jpg", 0.6, score=1.0) for k in range(0, 300, 5)]  # on top of the first
    entries += [entry(f"{k}.jpg", 5000.0, score=1.0) for k in (7, 9)]  # somewhere else, but hardly ever
    for e in entries[-2:]:
        e["keypoints"][2::3] = [0.5] * 26
    tracks, report = read_keypoints(write(tmp_path, entries))
    assert len(tracks) == 1
    assert report.shared_ids == ()
    assert len(report.doubles) == 62


def test_who_comes_after_a_long_time_is_somebody_new(tmp_path):
    frames = [openpose_frame(person_at(100), person_at(900)) for _ in range(5)]
    frames += [openpose_frame(person_at(100)) for _ in range(40)]
    frames += [openpose_frame(person_at(100), person_at(900)) for _ in range(5)]
    tracks, _ = read_keypoints(openpose_folder(tmp_path, frames))
    assert [track.num_frames for track in tracks] == [50, 5, 5]


def mmpose_person(num_joints=17, x=0.0, **more):
    """As MMPose's `split_instances` writes one: the box is a list within a list."""
    keypoints = [[x + 10.0 * joint, 20.0 * joint] for joint in range(num_joints)]
    scores = [0.01 * joint for joint in range(num_joints)]
    person = {"keypoints": keypoints, "keypoint_scores": scores, "bbox": [[0, 0, 9, 9]], "bbox_score": 0.75}
    return person | more


def mmpose(*people, num_frames=3, first_frame=0):
    people = list(people or [mmpose_person()])
    return [{"frame_id": first_frame + i, "instances": people} for i in range(num_frames)]


def test_mmpose_files_of_both_kinds(tmp_path):
    names = {"0": "nose", "1": "left_eye"}
    for content, first_frame in (
        (mmpose(), 0),
        ({"meta_info": {"keypoint_id2name": names}, "instance_info": mmpose(first_frame=1)}, 1),
        ({"meta_info": {}, "instance_info": mmpose()}, 0),
    ):
        (track,), report = read_keypoints(write(tmp_path, content))
        assert report.format == "mmpose"
        assert track.skeleton is COCO_17
        assert track.frame_ids.tolist() == [first_frame, first_frame + 1, first_frame + 2]
        np.testing.assert_array_equal(track.keypoints_px[1, 3], [30, 60])
        np.testing.assert_allclose(track.confidence[2], 0.01 * np.arange(17), atol=1e-6)


def test_mmpose_skeletons_by_the_number_of_keypoints(tmp_path):
    for count, skeleton in ((17, COCO_17), (26, HALPE_26), (133, COCO_17)):
        (track,), _ = read_keypoints(write(tmp_path, mmpose(mmpose_person(count))))
        assert track.skeleton is skeleton
        assert track.keypoints_px.shape == (3, skeleton.num_joints, 2)
        np.testing.assert_array_equal(track.keypoints_px[0, 16], [160, 320])


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


def gastnet(num_frames=3, **person):
    somebody = {"pose": [[float(j), 2.0 * j] for j in range(17)], "score": [[0.9]] * 17} | person
    return {"label": "x", "data": [{"frame_index": k + 1, "skeleton": [somebody]} for k in range(num_frames)]}


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
    assert read_keypoints(write(tmp_path, gastnet())).tracks[0].frame_ids.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match=problem):
        read_keypoints(write(tmp_path, gastnet(**person)))


def test_frame_ids_gaps_and_order_are_respected(tmp_path):
    entries = [entry("clip_02/img_000007.png"), entry(4), entry("12.jpg"), entry("/a/b.c/0005.jpeg")]
    file = read_keypoints(write(tmp_path, entries), fps=50, image_size=(480, 640))
    (track,) = file.tracks
    assert track.frame_ids.tolist() == [4, 5, 7, 12]
    assert track.gaps == ((6, 6), (8, 11))
    assert file.report.missing_frames == {"0": 5}
    assert (track.fps, track.image_size) == (50, (480, 640))
    np.testing.assert_array_equal(track.keypoints_px[0, 3], [30.5, 60.0])


def test_doubles_keep_the_higher_score_wherever_it_stands(tmp_path):
    entries = [entry("3.jpg", 0.1, score=1.0), entry("3.jpg", 0.2, score=3.0), entry("3.jpg", 0.3, score=2.0)]
    file = read_keypoints(write(tmp_path, entries))
    assert file.report.doubles == (("0", 3),)
    assert file.tracks[0].confidence[0, 0] == np.float32(0.2)


def test_people_are_told_apart_by_idx_in_any_nesting(tmp_path):
    entries = [
        entry("0.jpg", idx=[1.0]),
        entry("0.jpg", idx=[[2.0], [2.0]]),
        entry("1.jpg", idx=2),
        entry("2.jpg", idx=[[[2.0]]]),
    ]
    tracks, report = read_keypoints(write(tmp_path, entries))
    assert [(track.person_id, track.num_frames) for track in tracks] == [("2", 3), ("1", 1)]
    assert report.doubles == ()


def test_without_idx_the_best_scored_person_of_each_frame_is_kept(tmp_path):
    entries = [entry("0.jpg", score=1.0), entry("0.jpg", 0.9, score=2.0), entry("1.jpg")]
    for e in entries:
        del e["idx"]
    (track,), _ = read_keypoints(write(tmp_path, entries))
    assert track.num_frames == 2
    assert track.confidence[0, 0] == np.float32(0.9)


def test_confidences_a_little_beyond_the_unit_interval_are_clipped(tmp_path):
    entries = [entry(f"{i}.jpg") for i in range(20)]
    entries[3]["keypoints"][2], entries[4]["keypoints"][2] = 1.07, -0.01
    (track,), report = read_keypoints(write(tmp_path, entries))
    assert (report.num_clipped, report.confidence_scale) == (2, 1.0)
    assert track.confidence[3, 0] == 1
    assert track.confidence[4, 0] == 0
    assert track.confidence[5, 0] == 0.5


def test_alphapose_coco_confidences_up_to_six_are_scaled_by_their_95th_percentile(tmp_path):
    entries = [entry(f"{i}.jpg", value=6 * i / 100, num_joints=17) for i in range(1, 101)]
    (track,), report = read_keypoints(write(tmp_path, entries))
    assert track.skeleton is COCO_17
    assert report.confidence_scale == pytest.approx(5.7, abs=0.05)
    assert track.confidence[49, 0] == pytest.approx(3 / 5.7, abs=0.01)
    assert track.confidence.max() == 1
    assert "confidences divided by 5.7" in str(report)


def test_npz_round_trip_is_exact(tmp_path):
    (track,), _ = read_keypoints(write(tmp_path, [entry("3.jpg", 0.25), entry("9.jpg", 0.75)]), fps=25)
    path = tmp_path / "track.npz"
    write_keypoints_npz(path, track)
    file = read_keypoints(path, fps=60, image_size=(10, 10))
    (again,) = file.tracks
    assert file.report.format == "npz"
    assert again.skeleton is HALPE_26
    assert (again.fps, again.person_id) == (25, "0")
    np.testing.assert_array_equal(again.frame_ids, track.frame_ids)
    np.testing.assert_array_equal(again.keypoints_px, track.keypoints_px)
    np.testing.assert_array_equal(again.confidence, track.confidence)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


BROKEN = {
    "truncated": (json.dumps([entry()])[:-40], "it is not JSON"),
    "empty": ("", "it is not JSON"),
    "deep": ("[" * 100_000, "it is not JSON"),
    "huge integer": ("[" + "9" * 5000 + "]", "it is not JSON"),
    "empty list": ([], "empty list"),
    "other keys": ([{"a": 1}], "first entry has the keys 'a'"),
    "numbers": ([1, 2], "first entry is of type int"),
    "scalar": (3, "holds a single int"),
    "dict": (
        {"version": 1.2, "animals": []},
        "holds the keys 'version', 'animals'.*these are read: alphapose",
    ),
    "number of values": ([entry(num_joints=25)], "75 keypoint values, and AlphaPose writes 78"),
    "one short": ([entry(), entry(keypoints=[1.0] * 77)], "entry 1 are 77 values, and 78 numbers"),
    "no keypoints": ([entry(), {"image_id": "1.jpg"}], "entry 1 lacks image_id or keypoints"),
    "text": ([entry(keypoints=["x"] * 78)], "not all numbers"),
    "true": ([entry(keypoints=[True] * 78)], "not all numbers"),
    "NaN": ([entry(value=float("nan"))], "not finite"),
    "infinite": (json.dumps([entry()]).replace("250.5", "1e999"), "not finite"),
    "far": ([entry(keypoints=[10**400] * 78)], "beyond a million"),
    "image_id": ([entry("frame.jpg")], "'frame.jpg' of entry 0 does not end in a frame number"),
    "image_id type": ([entry(None)], "is a NoneType"),
    "frame number": ([entry("9999999999999.jpg")], "outside 0 to"),
    "idx": ([entry(idx="one")], "idx of entry 0"),
    "score": ([entry(score=None)], "score of entry 0"),
}


@pytest.mark.parametrize(("content", "problem"), BROKEN.values(), ids=BROKEN)
def test_broken_files_give_one_sentence_that_names_them(tmp_path, content, problem):
    path = write(tmp_path, content)
    with pytest.raises(ValueError, match=problem) as caught:
        read_keypoints(path)
    message = str(caught.value)
    assert message.startswith(f"Cannot read keypoints from {path}: ")
    assert message.endswith(".")
    assert "\n" not in message
    assert len(message) < 500


def test_missing_file_unknown_format_and_folder(tmp_path):
    with pytest.raises(ValueError, match=r"absent.json: it cannot be opened \("):
        read_keypoints(tmp_path / "absent.json")
    with pytest.raises(ValueError, match=r"no keypoint format 'openpose9'; these are read: alphapose"):
        read_keypoints(tmp_path / "absent.json", format="openpose9")
    with pytest.raises(ValueError, match="it is a folder without JSON files"):
        read_keypoints(tmp_path)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(
        ValueError, match="folder of 1 JSON files, of which the first is no frame of OpenPose's"
    ):
        read_keypoints(tmp_path)


def test_a_named_format_that_does_not_fit_says_what_it_found(tmp_path):
    with pytest.raises(
        ValueError, match=r"a keypoint npz has the arrays .* but it is a list whose first entry"
    ):
        read_keypoints(write(tmp_path, [entry()]), format="npz")


def test_too_large_a_file_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_MAX_FILE_BYTES", 100)
    with pytest.raises(ValueError, match="at most 0 are read; split it"):
        read_keypoints(write(tmp_path, [entry()]))


def own_npz(**changes):
    arrays = {
        "keypoints_px": np.zeros((2, 17, 2)),
        "confidence": np.ones((2, 17)),
        "frame_ids": np.array([0, 1]),
        "fps": np.array(30.0),
        "skeleton": np.array("coco_17"),
    }
    return arrays | changes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"skeleton": np.array("coco_99")}, "'coco_99', which is none of h36m_17"),
        ({"confidence": np.ones((2, 16))}, r"its confidence are float64 of shape \(2, 16\)"),
        ({"keypoints_px": np.full((2, 17, 2), np.nan)}, "not finite"),
        ({"frame_ids": np.array(["a", "b"])}, "its frame_ids are <U1"),
        ({"frame_ids": np.array([-1, 1])}, "frame number outside"),
        ({"fps": np.array(np.nan)}, "frame rate is nan"),
        ({"keypoints_px": np.array([{}, {}])}, "not an npz of plain arrays"),
    ],
)
def test_broken_npz(tmp_path, changes, problem):
    path = tmp_path / "broken.npz"
    np.savez(path, **own_npz(**changes))
    with pytest.raises(ValueError, match=rf"Cannot read keypoints from .*broken.npz: .*{problem}"):
        read_keypoints(path)


def test_npz_that_is_none(tmp_path):
    path = tmp_path / "none.npz"
    for content in (b"", b"PK\x03\x04", b"hello"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="npz"):
            read_keypoints(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("keypoints_px.npy", b"no array")
    with pytest.raises(ValueError, match="npz"):
        read_keypoints(path)


def test_an_npz_that_unpacks_to_too_much_is_not_loaded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **own_npz(keypoints_px=np.zeros((4096, 17, 2))))
    monkeypatch.setattr(formats, "_MAX_FILE_BYTES", 1 << 19)
    with pytest.raises(ValueError, match="unpacks to"):
        read_keypoints(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(
    key=st.sampled_from(["image_id", "keypoints", "score", "idx", "box"]), value=JSON, which=st.integers(0, 2)
)
def test_any_value_in_any_place_is_read_or_refused_with_a_value_error(tmp_path, key, value, which):
    entries = [entry(f"{i}.jpg", num_joints=17) for i in range(3)]
    entries[which][key] = value
    refuses_only_with_value_error(write(tmp_path, entries))


@FUZZ
@given(
    value=JSON,
    path=st.lists(st.integers(0, 20), max_size=6),
    which=st.sampled_from(["openpose", "gastnet", "mmpose", "mediapipe"]),
)
def test_any_value_in_any_place_of_other_formats(tmp_path, value, path, which):
    contents = {
        "openpose": openpose_frame(person_at(0), person_at(400)),
        "gastnet": gastnet(),
        "mmpose": mmpose(),
        "mediapipe": [mediapipe_person(), [], mediapipe_person()],
    }
    content = contents[which]
    place = content
    for step in path:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        inner = place[keys[step % len(keys)]] if keys else None
        if not isinstance(inner, dict | list) or not inner:
            break
        place = inner
    keys = list(place) if isinstance(place, dict) else list(range(len(place)))
    place[keys[path[-1] % len(keys) if path else 0]] = value
    refuses_only_with_value_error(write(tmp_path, content))


@FUZZ
@given(position=st.integers(0, 10_000), bytes_=st.binary(max_size=4), length=st.integers(0, 50))
def test_any_damage_is_read_or_refused_with_a_value_error(tmp_path, position, bytes_, length):
    sound = json.dumps([entry(f"{i}.jpg", num_joints=17) for i in range(2)]).encode()
    position %= len(sound)
    path = tmp_path / "damaged.json"
    path.write_bytes(sound[:position] + bytes_ + sound[position + length :])
    refuses_only_with_value_error(path)


@settings(FUZZ, max_examples=60)
@given(position=st.integers(0, 10_000), bytes_=st.binary(min_size=1, max_size=4))
def test_any_damage_of_an_npz_is_read_or_refused_with_a_value_error(tmp_path, position, bytes_):
    path = tmp_path / "damaged.npz"
    np.savez(path, **own_npz())
    sound = path.read_bytes()
    position %= len(sound)
    path.write_bytes(sound[:position] + bytes_ + sound[position + len(bytes_) :])
    refuses_only_with_value_error(path)


def refuses_only_with_value_error(path: Path) -> None:
    tracks, message = [], None
    try:
        tracks, _ = read_keypoints(path)
    except ValueError as error:
        message = str(error)
    assert message is None or message.startswith(f"Cannot read keypoints from {path}: ")
    for track in tracks:
        assert np.isfinite(track.keypoints_px).all()
