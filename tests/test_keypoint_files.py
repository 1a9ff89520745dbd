"""From a keypoint file to tracks: frames, people, doubles, confidences; broken files."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keypoint_fixtures import (
    entry,
    gastnet,
    javascript_person,
    mediapipe_person,
    mmpose,
    openpose_folder,
    openpose_frame,
    person_at,
    person_with_scores,
    write,
    yolo_label,
    yolo_labels,
    yolo_summary,
)

from core.keypoints import loading
from core.keypoints.files import read_keypoints, write_keypoints_npz
from core.skeleton import COCO_17, HALPE_26


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


def test_false_detections_take_nobodys_place(tmp_path):
    """A detector leaves ghosts: a few keypoints, somewhere near, for a frame. The person stays one."""
    rng = np.random.default_rng(0)
    frames = []
    for k in range(200):
        people = [person_at(300 + 2 * k)]
        if rng.random() < 0.2:
            ghost = [0.0] * 75
            x, y = rng.uniform((100, 80), (900, 400))
            for joint in rng.choice(25, 4, replace=False):
                ghost[3 * joint : 3 * joint + 3] = [x + rng.uniform(-30, 30), y + rng.uniform(-30, 30), 0.3]
            people.append(ghost)
        frames.append(openpose_frame(*people))
    tracks, _ = read_keypoints(openpose_folder(tmp_path, frames))
    assert tracks[0].num_frames >= 180
    assert all(track.num_frames < 10 for track in tracks[1:])


def test_a_person_does_not_begin_as_a_false_detection_of_before(tmp_path):
    ghost = [0.0] * 75
    for joint, (x, y) in enumerate(((300, 200), (310, 205), (305, 215), (298, 210))):
        ghost[3 * joint : 3 * joint + 3] = [x, y, 0.3]
    frames = [openpose_frame(person_at(900), *([ghost] if k in (3, 4) else [])) for k in range(20)]
    frames += [openpose_frame(person_at(900), person_at(300)) for _ in range(20)]
    tracks, _ = read_keypoints(openpose_folder(tmp_path, frames))
    assert sorted(track.num_frames for track in tracks) == [2, 20, 40]
    assert next(track for track in tracks if track.num_frames == 20).frame_ids[0] == 20


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
    entries = [entry("3.jpg", 0.7, score=1.0), entry("3.jpg", 0.8, score=3.0), entry("3.jpg", 0.9, score=2.0)]
    file = read_keypoints(write(tmp_path, entries))
    assert file.report.doubles == (("0", 3),)
    assert file.tracks[0].confidence[0, 0] == np.float32(0.8)


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
    entries = [entry(f"{i}.jpg", 0.75) for i in range(20)]
    entries[3]["keypoints"][2], entries[4]["keypoints"][2] = 1.07, -0.01
    (track,), report = read_keypoints(write(tmp_path, entries))
    assert (report.num_clipped, report.confidence_scale) == (2, 1.0)
    assert track.confidence[3, 0] == 1
    assert track.confidence[4, 0] == 0
    assert track.confidence[5, 0] == 0.75


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
    file = read_keypoints(path, image_size=(600, 300))
    (again,) = file.tracks
    assert file.report.format == "npz"
    assert again.skeleton is HALPE_26
    assert (again.fps, again.person_id) == (25, "0")
    np.testing.assert_array_equal(again.frame_ids, track.frame_ids)
    np.testing.assert_array_equal(again.keypoints_px, track.keypoints_px)
    np.testing.assert_array_equal(again.confidence, track.confidence)
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".tmp"] == []


@pytest.mark.parametrize(
    ("image_size", "problem"),
    [
        ((520, 270), None),
        ((1080, 1920), None),
        ((400, 270), None),  # the feet are cut off, and guessed
        (
            (270, 520),
            "% of its keypoints lie outside pictures of 270 × 520 .*, and inside when both are swapped",
        ),
        (
            (100, 50),
            r"% of its keypoints lie outside pictures of 100 × 50 \(height × width\); give image_size",
        ),
    ],
)
def test_an_image_size_that_cannot_be_is_refused(tmp_path, image_size, problem):
    """Keypoints reach x = 250 and y = 500."""
    path = write(tmp_path, [entry(f"{i}.jpg") for i in range(3)])
    if problem is None:
        assert read_keypoints(path, image_size=image_size).tracks[0].image_size == image_size
        return
    with pytest.raises(ValueError, match=rf"Cannot read keypoints from .*detections\.json: \d+ {problem}"):
        read_keypoints(path, image_size=image_size)


def test_an_npz_whose_own_image_size_cannot_be_is_refused(tmp_path):
    keypoints_px = np.arange(2 * 17 * 2).reshape(2, 17, 2) * 10.0
    np.savez(tmp_path / "a.npz", **own_npz(keypoints_px=keypoints_px, image_size=np.array([90, 90])))
    with pytest.raises(ValueError, match=r"a\.npz: .* of 90 × 90 .*; correct its own image_size\.$"):
        read_keypoints(tmp_path / "a.npz")


def test_what_a_file_says_itself_is_not_overruled(tmp_path):
    keypoints_px = 100 + np.arange(68.0).reshape(2, 17, 2)
    np.savez(tmp_path / "a.npz", **own_npz(keypoints_px=keypoints_px, image_size=np.array([480, 640])))
    assert read_keypoints(tmp_path / "a.npz", fps=29.97, image_size=(480, 640)).tracks[0].fps == 30.0
    with pytest.raises(ValueError, match=r"a\.npz: it is of 30 frames a second itself, and fps=60 was given"):
        read_keypoints(tmp_path / "a.npz", fps=60)
    with pytest.raises(
        ValueError, match=r"a\.npz: it is of pictures of 480 × 640 .*image_size=\[640,480\] was"
    ):
        read_keypoints(tmp_path / "a.npz", image_size=(640, 480))


def test_an_assumed_frame_rate_is_said(tmp_path):
    path = write(tmp_path, [entry(f"{k}.jpg") for k in range(3)])
    report = read_keypoints(path).report
    assert report.fps_is_assumed
    assert "30 frames a second assumed" in str(report)
    report = read_keypoints(path, fps=30).report
    assert not report.fps_is_assumed
    assert "assumed" not in str(report)
    assert "1 frame," in str(read_keypoints(write(tmp_path, [entry()])).report)


def test_what_is_guessed_without_confidence_does_not_count_as_outside(tmp_path):
    guessed = entry()
    guessed["keypoints"] = [v for j in range(26) for v in (10.0 * j, 20.0 * j, 0.9 if j < 8 else 0.05)]
    assert read_keypoints(write(tmp_path, [guessed]), image_size=(200, 300)).tracks


def test_shares_of_the_picture_are_no_pixels(tmp_path):
    """The project's own format is pixels by definition; of others see test_keypoint_plausibility.py."""
    path = tmp_path / "shares.npz"
    np.savez(path, **own_npz(keypoints_px=np.linspace(0.01, 1.1, 68).reshape(2, 17, 2)))
    for image_size in (None, (480, 640)):
        with pytest.raises(
            ValueError, match=r"shares\.npz: all its coordinates lie within 2 pixels .*, so they are shares"
        ):
            read_keypoints(path, image_size=image_size)


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
    "number of values": ([entry(num_joints=25)], "entry 0 has 75 keypoint values, and three each of COCO-17"),
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
    "score": ([entry(score="high")], "score of entry 0"),
    "null in a list": ([entry(), None], "entry 1 lacks image_id or keypoints"),
    "huge idx": ([entry(idx=10**400)], "the idx of entry 0 is not a person's number"),
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
    (tmp_path / "a.json").write_text('{"a": 1}')
    with pytest.raises(
        ValueError,
        match=r"folder of 1 JSON files, of which the first, a.json, is no frame .* \(it holds the keys 'a'\)",
    ):
        read_keypoints(tmp_path)


def test_a_named_format_that_does_not_fit_says_what_it_found(tmp_path):
    with pytest.raises(
        ValueError, match=r"a keypoint npz has the arrays .* but it is a list whose first entry"
    ):
        read_keypoints(write(tmp_path, [entry()]), format="npz")


def test_too_large_a_file_is_not_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_MAX_FILE_BYTES", 100)
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
        ({"keypoints_px": np.array([{}, {}])}, r"its keypoints_px are object of shape \(2,\)"),
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


@pytest.mark.parametrize(
    ("offset", "bytes_"),
    # Of the central directory's first entry, found by a fuzzer: the version that unpacks it, and a name in UTF-8.
    [(6, b"\x40"), (8, b"\x00\x08")],
)
def test_an_npz_whose_directory_is_damaged(tmp_path, offset, bytes_):
    path = tmp_path / "damaged.npz"
    np.savez(path, **own_npz())
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + offset : entry + offset + len(bytes_)] = bytes_
    content[entry + 46] = 0xFF  # no letter begins so
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged\.npz: it is not a sound npz \(.*\)"):
        read_keypoints(path)


def test_an_npz_that_unpacks_to_too_much_is_not_loaded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, **own_npz(keypoints_px=np.zeros((4096, 17, 2))))
    monkeypatch.setattr(loading, "_MAX_FILE_BYTES", 1 << 19)
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
    which=st.sampled_from(
        ["openpose", "gastnet", "mmpose", "mediapipe", "ultralytics", "people", "javascript"]
    ),
)
def test_any_value_in_any_place_of_other_formats(tmp_path, value, path, which):
    contents = {
        "openpose": openpose_frame(person_at(0), person_at(400)),
        "gastnet": gastnet(),
        "mmpose": mmpose(),
        "mediapipe": [mediapipe_person(), [], mediapipe_person()],
        "ultralytics": [[yolo_summary(), yolo_summary(300.0)], [], [yolo_summary()]],
        "people": [[person_with_scores()], [], [person_with_scores()]],
        "javascript": [[javascript_person()], [], [javascript_person()]],
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


@FUZZ
@given(position=st.integers(0, 10_000), bytes_=st.binary(max_size=4), length=st.integers(0, 50))
def test_any_damage_of_labels_is_read_or_refused_with_a_value_error(tmp_path, position, bytes_, length):
    folder = tmp_path / "labels"
    path = folder / "video_2.txt"
    if not folder.is_dir():
        yolo_labels(folder, {number: [yolo_label(0, 0.9, 1), yolo_label(300, 0.8, 2)] for number in (1, 2)})
    sound = path.with_name("video_1.txt").read_bytes()
    position %= len(sound)
    path.write_bytes(sound[:position] + bytes_ + sound[position + length :])
    refuses_only_with_value_error(folder, image_size=(480, 640))


@settings(FUZZ, max_examples=60)
@given(position=st.integers(0, 10_000), bytes_=st.binary(min_size=1, max_size=4))
def test_any_damage_of_an_npz_is_read_or_refused_with_a_value_error(tmp_path, position, bytes_):
    path = tmp_path / "damaged.npz"
    np.savez(path, **own_npz())
    sound = path.read_bytes()
    position %= len(sound)
    path.write_bytes(sound[:position] + bytes_ + sound[position + len(bytes_) :])
    refuses_only_with_value_error(path)


def refuses_only_with_value_error(path: Path, **given) -> None:
    tracks, message = [], None
    try:
        tracks, _ = read_keypoints(path, **given)
    except ValueError as error:
        message = str(error)
    assert message is None or message.startswith(f"Cannot read keypoints from {path}: ")
    for track in tracks:
        assert np.isfinite(track.keypoints_px).all()
