"""Tracks keep time: gaps stay gaps, and nothing unseen is invented with confidence."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike

from core.keypoints.track import Track
from core.skeleton import COCO_17, H36M_17, HALPE_26


def make_track(frame_ids=(3, 4, 7, 9), skeleton=COCO_17, **changes) -> Track:
    rng = np.random.default_rng(0)
    num_frames = len(frame_ids)
    fields = {
        "person_id": "7",
        "skeleton": skeleton,
        "frame_ids": np.array(frame_ids),
        "keypoints_px": rng.uniform(0, 500, (num_frames, skeleton.num_joints, 2)).astype(np.float32),
        "confidence": rng.uniform(0.1, 1, (num_frames, skeleton.num_joints)).astype(np.float32),
        "fps": 25.0,
    }
    return Track(**(fields | changes))


def test_dense_fills_gaps_with_confidence_zero_in_between():
    track = make_track()
    assert track.gaps == ((5, 6), (8, 8))
    dense = track.dense()
    assert dense.frame_ids.tolist() == [3, 4, 5, 6, 7, 8, 9]
    assert dense.gaps == ()
    assert dense.fps == track.fps
    detected = [0, 1, 4, 6]
    np.testing.assert_array_equal(dense.keypoints_px[detected], track.keypoints_px)
    np.testing.assert_array_equal(dense.confidence[detected], track.confidence)
    assert (dense.confidence[[2, 3, 5]] == 0).all()
    before, after = track.keypoints_px[1], track.keypoints_px[2]
    np.testing.assert_allclose(dense.keypoints_px[2], before + (after - before) / 3, rtol=1e-5)
    np.testing.assert_allclose(dense.keypoints_px[3], before + (after - before) * 2 / 3, rtol=1e-5)


def test_dense_track_without_gaps_is_itself():
    track = make_track(frame_ids=(0, 1, 2))
    dense = track.dense()
    np.testing.assert_array_equal(dense.keypoints_px, track.keypoints_px)
    np.testing.assert_array_equal(dense.confidence, track.confidence)


def test_unseen_joints_never_pull_a_gap_towards_them():
    track = make_track()
    confidence, keypoints_px = track.confidence.copy(), track.keypoints_px.copy()
    confidence[1, 5], keypoints_px[1, 5] = 0, 0  # missed in frame 4: (0, 0) is no place
    confidence[:, 6] = 0  # never seen
    dense = dataclasses.replace(track, confidence=confidence, keypoints_px=keypoints_px).dense()
    first, last = keypoints_px[0, 5], keypoints_px[2, 5]
    for frame in range(1, 4):
        np.testing.assert_allclose(
            dense.keypoints_px[frame, 5], first + (last - first) * frame / 4, rtol=1e-5
        )
        assert dense.confidence[frame, 5] == 0
    assert (dense.keypoints_px[:, 6] == 0).all()
    assert (dense.confidence[:, 6] == 0).all()


def test_a_broken_frame_id_does_not_fill_the_memory():
    with pytest.raises(ValueError, match="spans frames 0 to 999999999, more than a million"):
        make_track(frame_ids=(0, 999_999_999)).dense()


def test_conversion_reports_what_it_derived():
    track = make_track(skeleton=HALPE_26)
    converted, derived, missing = track.to_skeleton(H36M_17)
    assert converted.skeleton is H36M_17
    assert (derived, missing) == (("spine",), ())
    np.testing.assert_array_equal(converted.keypoints_px[:, 0], track.keypoints_px[:, 19])
    assert converted.keypoints_px.dtype == np.float32
    assert converted.frame_ids.tolist() == [3, 4, 7, 9]


def test_assumed_image_size():
    track = make_track()
    keypoints_px = track.keypoints_px.copy()
    keypoints_px[0, 0], keypoints_px[0, 1] = (812.3, 20), (9999, 9999)
    confidence = track.confidence.copy()
    confidence[0, 1] = 0
    track = dataclasses.replace(track, keypoints_px=keypoints_px, confidence=confidence)
    height, width = track.assumed_image_size()
    assert width == 813
    assert 400 < height <= 500
    assert dataclasses.replace(track, image_size=(720, 1280)).assumed_image_size() == (720, 1280)
    unseen = dataclasses.replace(track, confidence=np.zeros_like(confidence))
    assert unseen.assumed_image_size() == (1, 1)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"frame_ids": np.array([3, 4, 4, 9])}, "do not increase"),
        ({"confidence": np.full((4, 17), 1.1, np.float32)}, r"spans 1.1 to 1.1"),
        ({"keypoints_px": np.full((4, 17, 2), np.nan, np.float32)}, "not finite"),
        ({"fps": 0.0}, "frame rate is 0.0"),
        ({"fps": 1e6}, "frame rate is 1000000.0"),
        ({"image_size": (0, 640)}, "image size"),
    ],
)
def test_invalid_tracks_say_what_is_wrong(changes, problem):
    with pytest.raises(ValueError, match=rf"person '7' is not valid: .*{problem}"):
        make_track(**changes)


def test_keypoints_of_another_skeleton_are_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 17, 2\), not \(4, 26, 2\)"):
        dataclasses.replace(make_track(), skeleton=HALPE_26)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, np.ndarray.tolist])
def test_arrays_of_any_kind_make_a_track(kind: Callable[[np.ndarray], ArrayLike]) -> None:
    track = make_track(frame_ids=(0, 1, 2, 3), person_id="0")
    places, sure = track.keypoints_px, track.confidence
    with_confidence = np.concatenate((places, sure[..., None]), axis=-1)
    for made in (
        Track.from_arrays(kind(with_confidence), skeleton="coco_17", fps=25),
        Track.from_arrays(kind(places), skeleton=COCO_17, fps=25, confidence=kind(sure)),
        Track.from_arrays(
            kind(with_confidence[1:]), skeleton="coco_17", fps=25, frame_ids=kind(track.frame_ids[1:])
        ),
    ):
        first = int(made.frame_ids[0])
        np.testing.assert_array_equal(made.frame_ids, track.frame_ids[first:])
        np.testing.assert_array_equal(made.keypoints_px, places[first:])
        np.testing.assert_array_equal(made.confidence, sure[first:])
        assert (made.skeleton, made.fps, made.image_size) == (COCO_17, 25, None)


def test_a_place_that_is_no_number_is_unseen_and_one_without_confidence_is_sure() -> None:
    places = np.full((2, 17, 2), 5.0)
    places[0, 3, 1] = np.nan
    track = Track.from_arrays(places, skeleton="coco_17", fps=30.0, image_size=(10, 20), person_id="a")
    half = Track.from_arrays(torch.from_numpy(places).bfloat16(), skeleton="coco_17", fps=30.0)
    np.testing.assert_array_equal(half.keypoints_px, track.keypoints_px)
    assert track.confidence.sum() == 33
    assert track.confidence[0, 3] == 0
    assert (track.image_size, track.person_id) == ((10, 20), "a")


@pytest.mark.parametrize(
    ("keypoints", "given", "problem"),
    [
        (
            np.zeros((2, 17, 2)),
            {"skeleton": "coco"},
            r"no skeleton 'coco'; these are known: h36m_17, coco_17",
        ),
        (np.zeros((2, 26, 2)), {}, r"coco_17 have shape \(frame, 17, 2\), .* these have \(2, 26, 2\)"),
        (np.zeros((17, 2)), {}, r"these have \(17, 2\)"),
        (
            np.zeros((2, 17, 2)),
            {"confidence": np.ones(17)},
            r"do not go with .* confidence of \(17,\)",
        ),
        (np.zeros((2, 17, 2)), {"frame_ids": [3]}, r"do not go with frame_ids of \(1,\)"),
        (np.zeros((2, 17, 2)), {"frame_ids": [0, 0.5]}, r"frame_ids are .* whole, from 0 on"),
        (np.zeros((2, 17, 2)), {"frame_ids": [-1, 0]}, r"frame_ids are .* whole, from 0 on"),
        (np.zeros((2, 17, 2)), {"frame_ids": [0, np.nan]}, r"frame_ids are .* whole, from 0 on"),
        (np.zeros((2, 17, 2)), {"fps": 0}, r"frame rate is 0"),
    ],
)
def test_arrays_that_are_no_track_say_why(keypoints: np.ndarray, given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Track.from_arrays(keypoints, **({"skeleton": "coco_17", "fps": 30.0} | given))


def test_a_track_without_frames_is_refused():
    with pytest.raises(ValueError, match="no frame"):
        make_track(frame_ids=np.zeros(0, int))
