"""People as lists of keypoints and scores: MMPose's predictions, and what libraries return."""

import json

import numpy as np
import pytest
from keypoint_fixtures import (
    descending_scores,
    javascript_person,
    mmpose,
    mmpose_person,
    person_with_scores,
    write,
)

from core.keypoints.files import read_keypoints
from core.skeleton import BLAZEPOSE_33, COCO_17, HALPE_26


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
        ([[{"keypoints": [None, {}], "scores": [1.0, 1.0]}]], "a keypoint without x, y and score"),
        (
            [[javascript_person(keypoints=[{"x": 1, "y": 2, "score": 1, "name": "neck"}] * 17)]],
            "its keypoints begin with 'neck'",
        ),
    ],
)
def test_people_with_scores_that_are_wrong(tmp_path, content, problem):
    with pytest.raises(ValueError, match=problem):
        read_keypoints(write(tmp_path, content))
