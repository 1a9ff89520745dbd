"""Keypoint files that are not what they would be taken for, and the strays that lie in folders."""

import gzip
import json

import numpy as np
import pytest
from keypoint_fixtures import (
    descending_scores,
    entry,
    javascript_person,
    mediapipe_person,
    mmpose,
    mmpose_person,
    openpose_folder,
    openpose_frame,
    person_at,
    person_with_scores,
    write,
    yolo_label,
    yolo_labels,
    yolo_summary,
)

from core.keypoints.files import read_keypoints


@pytest.mark.parametrize("person", [person_with_scores, javascript_person, mmpose_person, yolo_summary])
def test_one_persons_frames_are_no_picture_of_many(tmp_path, person):
    """As `[result.summary()[0] for result in results]` leaves them."""
    with pytest.raises(
        ValueError, match="its 6 entries would be people of one picture, but lie where 1 would"
    ):
        read_keypoints(write(tmp_path, [person()] * 6))
    # Two may be one person detected twice.
    assert len(read_keypoints(write(tmp_path, [person()] * 2)).tracks) == 1


def test_one_number_of_two_pictures_is_refused(tmp_path):
    clips = [entry(f"clip_{clip}/img_{frame}.png") for clip in (0, 1) for frame in (0, 1)]
    with pytest.raises(
        ValueError, match=r"'clip_0/img_0\.png' and 'clip_1/img_0\.png' are both frame 0; give each video"
    ):
        read_keypoints(write(tmp_path, clips))
    sizes = [entry(f"frame_{frame}_1080p.jpg") for frame in (0, 1)]
    with pytest.raises(
        ValueError, match=r"are both frame 1080; .* number pictures at the end of their names"
    ):
        read_keypoints(write(tmp_path, sizes))
    for name, content in (("openpose", openpose_frame(person_at(0))), ("mmpose", [mmpose_person()])):
        folder = tmp_path / name
        folder.mkdir()
        for video in ("a", "b"):
            (folder / f"{video}_0001.json").write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"'a_0001\.json' and 'b_0001\.json' are both frame 1"):
            read_keypoints(folder)


def test_unrelated_pictures_are_no_video(tmp_path):
    stills = [entry(image_id, num_joints=17) for image_id in (397133, 37777, 252219, 87038)]
    with pytest.raises(
        ValueError, match=r"its frames lie .* numbers apart in the median, so they are pictures"
    ):
        read_keypoints(write(tmp_path, stills))
    # Every 30th frame of a video is one, and so is somebody who comes back after long.
    (track,) = read_keypoints(write(tmp_path, [entry(f"{30 * i}.jpg") for i in range(9)])).tracks
    assert track.frame_ids[-1] == 240
    back = [entry(f"{start + i}.jpg") for start in (0, 5000) for i in range(20)]
    assert read_keypoints(write(tmp_path, back)).report.num_frames == 40


def test_who_passes_by_does_not_take_over(tmp_path):
    """Of two people with one id, for less than 1 % of the frames, the one who was there before is kept."""
    frames = [[person_at(100 + i)] for i in range(500)]
    for i in (0, 200, 201, 202):
        frames[i] = [person_at(1500, confidence=0.95), *frames[i]]
    folder = openpose_folder(tmp_path, [openpose_frame(*people) for people in frames])
    (track,), report = read_keypoints(folder)
    np.testing.assert_array_equal(track.keypoints_px[:, 0, 0], 100 + np.arange(500))
    assert report.doubles == (("0", 0), ("0", 200), ("0", 201), ("0", 202))


def test_low_confidences_are_on_a_scale_of_their_own(tmp_path):
    """Detectron2's are peaks of a softmax over places."""
    sure = [[person_with_scores(scores=descending_scores())] for _ in range(30)]
    low = [[person_with_scores(scores=[0.2 * s for s in descending_scores()])] for _ in range(30)]
    expected = read_keypoints(write(tmp_path, sure))
    (track,), report = read_keypoints(write(tmp_path, low))
    assert expected.report.confidence_scale == 1
    assert report.confidence_scale == pytest.approx(0.19, abs=0.005)
    np.testing.assert_allclose(track.confidence, expected.tracks[0].confidence, atol=0.05)
    assert "confidences divided by 0.19" in str(report)


def test_what_should_be_shares_and_is_not(tmp_path):
    for scale in (1000.0, -1.0):  # pixels; and metres on both sides of the hip
        people = [
            [{**landmark, "x": scale * landmark["x"], "y": scale * landmark["y"]} for landmark in person]
            for person in [mediapipe_person()] * 3
        ]
        with pytest.raises(
            ValueError, match=r"should be shares of the picture, from 0 to 1, and [0-9]+ % lie"
        ):
            read_keypoints(write(tmp_path, people), image_size=[480, 640])


def test_shares_of_detectors_that_write_pixels(tmp_path):
    """OpenPose's --keypoint_scale 3, Ultralytics' summary(normalize=True)."""
    pixels = np.array(person_at(100)).reshape(-1, 3)
    shares = (pixels / [640, 480, 1]).ravel().tolist()
    folder = openpose_folder(tmp_path, [openpose_frame(shares)] * 2)
    (track,), report = read_keypoints(folder, image_size=[480, 640])
    np.testing.assert_allclose(track.keypoints_px[1], pixels[:, :2], rtol=1e-5)
    assert "coordinates taken for shares of the picture" in str(report)
    with pytest.raises(ValueError, match="are shares of the picture's width and height; give image_size="):
        read_keypoints(folder)
    about_0 = write(tmp_path, [entry("0.jpg", keypoints=[-0.5, 0.5, 0.9] * 26)])
    with pytest.raises(ValueError, match="on both sides of it, so they are no pixels; write them as pixels"):
        read_keypoints(about_0)


def test_strays_in_folders(tmp_path):
    folder = openpose_folder(tmp_path, [openpose_frame(person_at(i)) for i in range(3)])
    (folder / "._clip7_000000000000_keypoints.json").write_bytes(b"\0\5\26\7Mac OS X")
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "readme.txt").write_text("by OpenPose")
    (folder / "9.json").mkdir()
    (folder / "clip7_000000000003_keypoints.JSON").write_text(json.dumps(openpose_frame(person_at(3))))
    assert read_keypoints(folder).tracks[0].num_frames == 4
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json has no list of people"):
        read_keypoints(folder)
    (folder / "config.json").rename(folder / "a.json")
    with pytest.raises(ValueError, match=r"of which the first, a\.json, is no frame"):
        read_keypoints(folder)
    labels = yolo_labels(tmp_path / "labels", {number: [yolo_label(0, 0.9)] for number in (1, 2)})
    (labels / "classes.txt").write_text("person\n")
    (labels / "args.json").write_text("{}")
    (labels / "video_3.txt").write_bytes(b"\xef\xbb\xbf" + f"\n{yolo_label(0, 0.9)}\n\n".encode())
    assert read_keypoints(labels, image_size=[480, 640]).tracks[0].num_frames == 3


def test_a_folder_of_one_picture_need_not_be_numbered(tmp_path):
    for name, content in (("openpose", openpose_frame(person_at(0))), ("mmpose", [mmpose_person()])):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "portrait.json").write_text(json.dumps(content))
        assert read_keypoints(folder).tracks[0].frame_ids.tolist() == [0]
    (folder / "portrait.json").write_text(json.dumps(mmpose()))
    with pytest.raises(ValueError, match="give the file itself if it is of a whole video"):
        read_keypoints(folder)


@pytest.mark.parametrize(
    ("start", "problem"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0", "it is a video; run a 2D detector on it"),
        (gzip.compress(b"[]"), r"it is compressed \(gzip\); unpack it first"),
        (b"\x93NUMPY\1\0", r"it is a single array \(\.npy\)"),
        (b"\x80\4\x95\0\0\0\0", "it is a pickle, which is never read"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "it is a picture"),
    ],
)
def test_files_of_other_kinds_are_called_what_they_are(tmp_path, start, problem):
    path = tmp_path / "keypoints.dat"
    path.write_bytes(start)
    with pytest.raises(ValueError, match=problem):
        read_keypoints(path)


@pytest.mark.parametrize(
    "content",
    [
        [[], None, []],
        [{"frame_id": 0, "instances": []}, {"frame_id": 1, "instances": []}],
        {"meta_info": {}, "instance_info": []},
        [],
    ],
)
@pytest.mark.parametrize("format", ["auto", "alphapose", "people", "mmpose", "gastnet"])
def test_nobody_was_detected(tmp_path, content, format):
    with pytest.raises(ValueError, match="no person was detected"):
        read_keypoints(write(tmp_path, content), format=format)


def test_numbers_and_nothing_as_other_writers_have_them(tmp_path):
    entries = [entry(float(i), score=None) for i in range(3)]  # pandas
    assert read_keypoints(write(tmp_path, entries)).tracks[0].frame_ids.tolist() == [0, 1, 2]
    frames = [[person_with_scores()], None, [person_with_scores()]]
    assert read_keypoints(write(tmp_path, frames)).tracks[0].frame_ids.tolist() == [0, 2]
    (track,) = read_keypoints(write(tmp_path, mmpose(mmpose_person(bbox_score=None)))).tracks
    assert track.num_frames == 3
    for given in ({"fps": True}, {"image_size": [True, True]}):
        with pytest.raises(ValueError, match=f"{next(iter(given))}=.*True.* is no"):
            read_keypoints(write(tmp_path, entries), **given)
