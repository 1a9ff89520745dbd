"""Films of motions: who is where in which frame, what follows them, and what is refused."""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_fixtures import run_tool
from jaxtyping import Bool, Int
from PIL import Image
from torch import Tensor

from body_models.export.film import FILM_HEIGHT_PX, Scene, chosen_views, film, planned_film, write_film
from body_models.export.motion import motion_parameters
from body_models.open_body import load_open_body
from body_models.render import render
from body_models.render.pictures import backdrop, overlay_picture
from body_models.render.stage import Stage, with_tiled_floor
from body_models.smpl import SmplBody
from core.camera import R_YDOWN_ZUP, PinholeCamera
from core.keypoints.files import write_keypoints_npz
from core.keypoints.track import Track
from core.motion.procedural import procedural_motion
from core.motion.sequence import MotionSequence, write_motion_npz
from core.skeleton import H36M_17
from core.video import read_video, read_video_facts, video_written_whole
from mesh_head.prediction_files import read_scene
from mesh_head.prediction_folders import film_path, in_place_of_earlier_prediction

K = torch.tensor([[300.0, 0.0, 120.0], [0.0, 300.0, 80.0], [0.0, 0.0, 1.0]])
CAMERA = PinholeCamera(K, torch.eye(3), torch.zeros(3), (160, 240))


@pytest.fixture(scope="module")
def body() -> SmplBody:
    return load_open_body("neutral")


@pytest.fixture(scope="module")
def walker() -> MotionSequence:
    """Ten frames, the first of them the video's fourth, some four metres before the camera."""
    sequence = procedural_motion(num_sequences=1, num_frames=10, fps=25.0, seed=3)[0]
    translation = sequence.translation_world_m - sequence.translation_world_m.mean(axis=0)
    translation = (translation + np.array([0.0, 4.0, 0.2])).astype(np.float32)
    return replace(sequence, translation_world_m=translation, body_model="open", first_frame=3, name="walker")


def moved(person: MotionSequence, right_m: float, first_frame: int) -> MotionSequence:
    translation = (person.translation_world_m + np.array([right_m, 0, 0])).astype(np.float32)
    return replace(person, translation_world_m=translation, first_frame=first_frame)


def pixels(image: Image.Image) -> Int[Tensor, "height width 3"]:
    return torch.tensor(np.asarray(image), dtype=torch.int64)


def filmed(scene: Scene, body: SmplBody, **settings: Any) -> list[Int[Tensor, "height width 3"]]:
    given = {"frames": scene.frames, "views": ["camera"], "height_px": 160, "recorded": None} | settings
    return [pixels(picture) for picture in film(scene, body, renderer="torch", **given)]


def silhouette(body: SmplBody, person: MotionSequence, frame: int) -> Bool[Tensor, "height width"]:
    with torch.no_grad():
        vertices_m = body(motion_parameters(person, body, [frame])).vertices_m[0]
    return render(vertices_m @ torch.tensor(R_YDOWN_ZUP).T, body.faces, CAMERA).alpha[0] > 0


def test_bodies_are_where_the_camera_saw_them(body: SmplBody, walker: MotionSequence) -> None:
    recorded = [np.full((160, 240, 3), 10 * frame, np.uint8) for frame in walker.frames]
    pictures = filmed(Scene([walker], CAMERA, "walker"), body, recorded=recorded)
    assert len(pictures) == 10
    for frame, picture in zip(walker.frames, pictures, strict=True):
        changed = (picture != 10 * frame).any(-1)
        covered = silhouette(body, walker, frame)
        assert int(covered.sum()) > 500
        # Supersampling touches pixels at the edge whose centres are not covered.
        assert bool(changed[covered].all())
        assert int((changed & ~covered).sum()) < 0.2 * int(covered.sum())


def test_the_window_around_a_body_is_as_the_whole_picture(body: SmplBody, walker: MotionSequence) -> None:
    with torch.no_grad():
        vertices_m = body(motion_parameters(walker, body, [5])).vertices_m[0] @ torch.tensor(R_YDOWN_ZUP).T
    below = backdrop((160, 240))
    # In the middle, half outside, outside altogether, around the camera.
    for offset in ([0.0, 0.0, 0.0], [1.5, 0.4, 0.0], [9.0, 0.0, 0.0], [0.0, 0.0, -4.0]):
        there = vertices_m + torch.tensor(offset)
        output = render(there, body.faces, CAMERA, supersample=3)
        whole = 0.7 * output.rgb[0] + (1 - 0.7 * output.alpha[0, ..., None]) * pixels(below) / 255
        picture = pixels(overlay_picture(below, there, body.faces, CAMERA, opacity=0.7))
        different = ((picture - (whole.clamp(0, 1) * 255).round()).abs() > 1).any(-1)
        assert int(different.sum()) <= 2, offset  # samples exactly on an edge


def test_people_come_and_go(body: SmplBody, walker: MotionSequence) -> None:
    left, right = moved(walker, -0.8, 0), moved(walker, 0.8, 6)
    scene = Scene([left, right], CAMERA, "two")
    assert scene.frames == range(16)
    empty = pixels(backdrop((160, 240)))
    for frame, picture in zip(scene.frames, filmed(scene, body), strict=True):
        changed = (picture != empty).any(-1)
        assert bool(changed[silhouette(body, left, min(frame, 9))].all()) == (frame in left.frames)
        assert bool(changed[silhouette(body, right, max(frame, 6))].all()) == (frame in right.frames)
    both = filmed(scene, body, frames=range(7, 8))[0].float()
    colors = [both[silhouette(body, person, 7)].mean(0) for person in (left, right)]
    assert colors[0][2] > colors[0][0] + 20  # the first is blue,
    assert colors[1][0] > colors[1][2] + 20  # the second orange


def test_a_picture_that_is_assumed_to_end_at_the_keypoints_has_a_margin(
    body: SmplBody, walker: MotionSequence
) -> None:
    def at_the_edge(picture: Int[Tensor, "height width 3"]) -> bool:
        empty = pixels(backdrop((picture.shape[0], picture.shape[1])))
        return bool((picture != empty).any(-1)[:, -2:].any())

    scene = Scene([moved(walker, 1.0, 0)], CAMERA, "walker")  # a hand is beyond the picture's right edge
    assumed = replace(scene, size_is_assumed=True)
    assert at_the_edge(filmed(scene, body, frames=range(1))[0])
    shown = filmed(assumed, body, frames=range(1))[0]
    assert not at_the_edge(shown)
    plan = planned_film("a.mp4", assumed, body, frames=range(1), views=["camera"], height_px=160, video=None)
    assert plan.image_size == shown.shape[:2] == (160, 222)
    # Over the video it is the video's.
    recorded = [np.zeros((160, 240, 3), np.uint8)]
    assert filmed(assumed, body, frames=range(1), recorded=recorded)[0].shape == (160, 240, 3)


def test_views_stand_side_by_side(body: SmplBody, walker: MotionSequence) -> None:
    scene = Scene([walker], CAMERA, "walker")
    three = filmed(scene, body, frames=range(3, 13, 4), views=["camera", "side", 30.0])
    assert [picture.shape for picture in three] == [(160, 240 + 4 + 120 + 4 + 120, 3)] * 3
    side = filmed(scene, body, frames=range(3, 13, 4), views=["side"])
    assert torch.equal(three[1][:, 244:364], side[1])
    assert not torch.equal(three[1][:, 244:364], three[1][:, 368:])


def test_a_stage_follows_calmly() -> None:
    fps, times = 30.0, np.arange(300) / 30
    # Somebody who walks to the right, waves, and jumps once.
    jump = 0.4 * np.exp(-(((times - 5) / 0.15) ** 2))
    middle = np.stack([1.2 * times, -jump - 0.9, np.full(300, 4.0)], axis=1)
    wave = 0.3 * np.sin(2 * np.pi * 2.5 * times)[:, None] * [1.0, 0, 0]
    half = np.array([0.3, 0.9, 0.3])
    low = middle - half + np.minimum(wave, 0)
    high = middle + half + np.maximum(wave, 0)
    low[100:110], high[100:110] = np.inf, -np.inf  # and is not seen for a while
    stage = Stage.around(low, high, fps=fps)
    steps_m = np.diff(stage.target_m[30:-30], axis=0)
    np.testing.assert_allclose(steps_m[:, 0], 1.2 / fps, atol=0.1 * 1.2 / fps)
    assert np.abs(steps_m[:, 1]).max() < 0.01  # the jump itself is 0.2 m from frame to frame
    np.testing.assert_allclose(stage.floor_y_m, 0, atol=0.02)  # the floor does not jump along
    assert 3 < stage.distance_m < 12


def test_the_floor_is_where_feet_are_however_the_ground_rises() -> None:
    times = np.arange(300) / 30
    feet_y_m = -0.3 * times + 0.02 * np.sin(
        2 * np.pi * 1.8 * times
    )  # strides, before a camera that is not level
    high = np.stack([np.zeros(300), feet_y_m, np.full(300, 4.0)], axis=1)
    gap_m = Stage.around(high - [0.5, 1.8, 0.5], high, fps=30.0).floor_y_m - feet_y_m
    inner = gap_m[30:-30]
    assert abs(np.median(inner)) < 0.025
    assert np.abs(inner).max() < 0.05


def test_the_floor_stands_still_below_a_moving_camera() -> None:
    def shade(place_x_m: float, camera_x_m: float) -> float:
        """Of the floor, one metre below, at a place some four metres away."""
        camera = PinholeCamera(K, torch.eye(3), torch.tensor([-camera_x_m, 0.0, 0.0]), (160, 240))
        picture = np.asarray(with_tiled_floor(backdrop((160, 240)), camera, 1.0, reach_m=20.0))
        z_m = 300 / (154.5 - 80)
        return float(picture[154, int(120 + 300 * (place_x_m - camera_x_m) / z_m)].mean())

    for camera_x_m in (0.1, 0.35, -0.2):
        assert shade(0.75, camera_x_m) == pytest.approx(shade(0.75, 0.0), abs=0.6)
        assert abs(shade(0.75, camera_x_m) - shade(0.25, camera_x_m)) > 5  # the next tile
        assert shade(1.25, camera_x_m) == pytest.approx(shade(0.25, camera_x_m), abs=0.6)
    picture = np.asarray(with_tiled_floor(backdrop((160, 240)), CAMERA, 1.0, reach_m=20.0))
    np.testing.assert_array_equal(picture[:80], np.asarray(backdrop((160, 240)))[:80])  # above the horizon


def test_views_are_checked(walker: MotionSequence) -> None:
    seen, unseen = Scene([walker], CAMERA, "seen"), Scene([walker], None, "walk.npz")
    assert chosen_views(None, seen) == ("camera", "side")
    assert chosen_views(None, unseen) == ("front", "side")
    assert chosen_views(["back", 30], unseen) == ("back", 30.0)
    for wrong in ([], "side", ["top"], [None], [True], [math.nan], 3):
        with pytest.raises(ValueError, match=r"must list some of camera, front, side, back"):
            chosen_views(wrong, seen)
    with pytest.raises(ValueError, match=r"walk\.npz is a motion that no camera is known of"):
        chosen_views(["camera"], unseen)


def write_plain_video(
    path: Path, num_frames: int, size: tuple[int, int] = (160, 240), fps: float = 25.0
) -> None:
    with video_written_whole(path, fps=fps, image_size=size) as add:
        for _ in range(num_frames):
            add(np.full((*size, 3), 200, np.uint8))


def test_a_film_has_its_videos_speed(body: SmplBody, walker: MotionSequence, tmp_path: Path) -> None:
    scene, video, out = Scene([walker], CAMERA, "walker"), tmp_path / "in.mp4", tmp_path / "out.mp4"
    write_plain_video(video, 20, fps=50.0)
    done: list[None] = []

    def write(frames: range, path: Path = video, height_px: int = 160) -> None:
        write_film(
            out,
            scene,
            body,
            frames=frames,
            views=["camera"],
            height_px=height_px,
            video=path,
            renderer="torch",
            on_frame_done=lambda: done.append(None),
        )

    write(range(3, 13, 2))
    facts = read_video_facts(out)
    frames = list(read_video(out))
    assert (facts.image_size, facts.fps, len(frames), len(done)) == ((160, 240), 25.0, 5, 5)
    for frame, picture in zip(range(3, 13, 2), frames, strict=True):
        covered = silhouette(body, walker, frame).numpy()
        assert np.abs(picture[~covered].astype(int) - 200).mean() < 3
        assert np.abs(picture[covered].astype(int) - 200).mean() > 10
    out.unlink()
    short, wide = tmp_path / "short.mp4", tmp_path / "wide.mp4"
    write_plain_video(short, 10)
    write_plain_video(wide, 20, (160, 320))
    for arguments, sentence in (
        ((range(3, 13), short), r"short\.mp4 has 10 frames, 0 to 9, and walker goes to 12"),
        (
            (range(3, 13), wide),
            r"wide\.mp4 is 320 × 160 pixels, and walker is for pictures of 240 × 160; give",
        ),
        ((range(3, 13), video, 161), "height_px=161 is odd, and films have even sides; give 162"),
        (
            (range(3, 13), video, 8),
            "height_px must be a whole number of at least 64 and of at most 4320, not 8",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            write(*arguments)
    assert not out.exists()
    with pytest.raises(ValueError, match="The video ends before frame 11"):
        filmed(scene, body, frames=range(3, 13), recorded=itertools.islice(read_video(short), 2, None))


def keypoint_file(path: Path, person_id: str, first_frame: int) -> None:
    """Somebody who stands before the camera of `CAMERA`'s size."""
    legs = [(0, 0), (-6, 0), (-7, 24), (-7, 46), (6, 0), (7, 24), (7, 46)]
    trunk, left_arm = [(0, -12), (0, -25), (0, -31), (0, -39)], [(10, -24), (14, -12), (15, 0)]
    offsets_px = np.array([*legs, *trunk, *left_arm, *((-x, y) for x, y in left_arm)], dtype=float)
    num_frames = 6
    track = Track(
        frame_ids=np.arange(first_frame, first_frame + num_frames),
        keypoints_px=np.tile(offsets_px + np.array([120.0, 80.0]), (num_frames, 1, 1)),
        confidence=np.ones((num_frames, 17)),
        skeleton=H36M_17,
        fps=30.0,
        image_size=None,
        person_id=person_id,
    )
    write_keypoints_npz(path, track)


def test_from_keypoints_and_video_to_a_film(tmp_path: Path) -> None:
    keypoint_file(tmp_path / "keypoints.npz", "7", 2)
    write_plain_video(tmp_path / "in.mp4", 9, fps=25.0)
    out = tmp_path / "out"
    finished = run_tool(
        "predict_mesh.py", f"input={tmp_path / 'keypoints.npz'}", "camera_pitch_deg=down", f"out={out}"
    )
    assert finished.returncode == 2
    assert (
        "camera_pitch_deg must be a number of at least -90 and of at most 90, or null, not down"
        in finished.stderr
    )
    assert not out.exists()
    finished = run_tool(
        "predict_mesh.py",
        *(
            f"input={tmp_path / 'keypoints.npz'}",
            f"video={tmp_path / 'in.mp4'}",
            f"out={out}",
            "sheet_frames=2",
            "camera_pitch_deg=20",
        ),
    )
    assert finished.returncode == 0, finished.stderr
    assert "The camera is taken to look down by 20°." in finished.stdout
    assert "film.mp4" in finished.stdout
    assert read_video_facts(out / "film.mp4").image_size == (FILM_HEIGHT_PX, 1080 + 4 + 540)
    assert len(list(read_video(out / "film.mp4"))) == 6
    told = json.loads((out / "prediction.json").read_text())
    assert (told["image_size"], told["image_size_is_assumed"]) == ([160, 240], False)
    assert told["camera_pitch_deg"] == pytest.approx(20, abs=1e-3)

    again = tmp_path / "again.mp4"
    finished = run_tool(
        "render_video.py",
        *(f"prediction={out}", f"out={again}", "views=[camera,back,45]", "height_px=128", "frames=[2,8,3]"),
    )
    assert finished.returncode == 0, finished.stderr
    assert read_video_facts(again).image_size == (128, 192 + 4 + 96 + 4 + 96)
    assert len(list(read_video(again))) == 2
    over_all = [f"prediction={out}", f"video={tmp_path / 'in.mp4'}", f"out={again}", "height_px=128"]
    finished = run_tool("render_video.py", *over_all, "frames=[0,9]")
    assert finished.returncode == 0, finished.stderr
    assert len(list(read_video(again))) == 9
    finished = run_tool("render_video.py", *over_all, "frames=[0,10]")
    assert finished.returncode == 2
    assert "in.mp4, which has 0 to 8; give [start, stop]" in finished.stderr

    scene = read_scene(out)
    assert (scene.frames, scene.people[0].name) == (range(2, 8), "out")
    write_motion_npz(tmp_path / "walk.npz", scene.people[0])
    finished = run_tool("render_video.py", f"motion={tmp_path / 'walk.npz'}", f"out={again}", "height_px=128")
    assert finished.returncode == 0, finished.stderr
    assert read_video_facts(again).image_size == (128, 96 + 4 + 96)


def test_people_of_one_prediction_make_a_scene(walker: MotionSequence, tmp_path: Path) -> None:
    def leave(folder: Path, person: MotionSequence, image_size: tuple[int, int]) -> None:
        folder.mkdir(parents=True)
        write_motion_npz(folder / "motion.npz", person)
        (folder / "prediction.json").write_text(json.dumps({"K": K.tolist(), "image_size": image_size}))

    folders = [tmp_path / "person_10", tmp_path / "person_2"]
    leave(tmp_path / "person_1", walker, (160, 240))  # of a prediction before
    leave(tmp_path / "person_2", moved(walker, 1.0, 40), (160, 240))
    leave(tmp_path / "person_10", walker, (160, 240))
    with pytest.raises(ValueError, match=r"holds no prediction\.json; give the folder that predict_mesh"):
        read_scene(tmp_path)
    with in_place_of_earlier_prediction(tmp_path, folders):
        pass
    scene = read_scene(tmp_path)
    assert [person.name for person in scene.people] == ["person_10", "person_2"]
    assert scene.frames == range(3, 50)
    assert scene.camera is not None
    assert torch.equal(scene.camera.K, K)
    assert [person.name for person in read_scene(tmp_path / "person_2").people] == ["person_2"]
    leave(tmp_path / "person_3", walker, (160, 320))
    with in_place_of_earlier_prediction(tmp_path, [*folders, tmp_path / "person_3"]):
        pass
    with pytest.raises(ValueError, match=r"person_10 and .*person_3 are not of one camera and frame rate"):
        read_scene(tmp_path)


def test_nobody_is_shown_where_nobody_was_seen_for_long(
    body: SmplBody, walker: MotionSequence, tmp_path: Path
) -> None:
    # Half a second is 12 frames here: the first gap is bridged, the second is not.
    unseen = [*range(6, 16), *range(20, 40)]
    long_walk = replace(
        walker,
        poses_rotvec=walker.poses_rotvec[[0] * 60],
        translation_world_m=walker.translation_world_m[[0] * 60],
        first_frame=0,
    )
    write_motion_npz(tmp_path / "motion.npz", long_walk)
    told = {"K": K.tolist(), "image_size": [160, 240], "frames_without_detection": unseen}
    (tmp_path / "prediction.json").write_text(json.dumps(told))
    scene = read_scene(tmp_path)
    assert scene.hidden == [frozenset(range(20, 40))]
    empty = pixels(backdrop((160, 240)))
    through = filmed(scene, body, frames=range(4, 42))
    assert [bool((picture != empty).any()) for picture in through] == [True] * 16 + [False] * 20 + [True] * 2
    with pytest.raises(ValueError, match=r"Nobody of .* is in any of the frames 25 to 30; give other frames"):
        filmed(scene, body, frames=range(25, 31))


def test_a_video_of_another_size_than_was_assumed_is_not_called_another_video(
    body: SmplBody, walker: MotionSequence, tmp_path: Path
) -> None:
    write_motion_npz(tmp_path / "motion.npz", walker)
    write_plain_video(tmp_path / "video.mp4", 10, size=(200, 300))
    for is_assumed, sentence in (
        (
            True,
            r"video\.mp4 is 300 × 200 pixels, and .* was predicted for pictures of 240 × 160, as nobody had",
        ),
        (False, r"video\.mp4 is 300 × 200 pixels, and .* is for pictures of 240 × 160; give the video that"),
    ):
        told = {"K": K.tolist(), "image_size": [160, 240], "image_size_is_assumed": is_assumed}
        (tmp_path / "prediction.json").write_text(json.dumps(told))
        with pytest.raises(ValueError, match=sentence):
            write_film(
                tmp_path / "film.mp4",
                read_scene(tmp_path),
                body,
                frames=range(3, 6),
                views=["camera"],
                height_px=160,
                video=tmp_path / "video.mp4",
                renderer="torch",
                on_frame_done=lambda: None,
            )


def test_a_film_never_replaces_its_video(body: SmplBody, walker: MotionSequence, tmp_path: Path) -> None:
    video = tmp_path / "film.mp4"
    write_plain_video(video, 20)
    before = video.read_bytes()
    settings = {"frames": range(3, 5), "views": ["camera"], "height_px": 160, "renderer": "torch"}
    scene = Scene([walker], CAMERA, "walker")
    with pytest.raises(ValueError, match=r"film\.mp4 is the video itself; give another out="):
        write_film(
            tmp_path / "." / "film.mp4", scene, body, video=video, on_frame_done=lambda: None, **settings
        )
    with pytest.raises(ValueError, match=r"film\.mp4 is the video itself"):
        film_path(tmp_path, video)
    assert video.read_bytes() == before
    assert film_path(tmp_path, None) is None
    (tmp_path / "out" / "film.mp4").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"film\.mp4 is a folder, and a file is to be written there"):
        film_path(tmp_path / "out", video)
    with pytest.raises(ValueError, match=r"of single pictures, and .*film\.mp4 is a video"):
        film_path(tmp_path / "elsewhere", video, of_stills=True)
    assert video.read_bytes() == before
    of_smpl = Scene([replace(walker, body_model="smpl")], CAMERA, "walker")
    with pytest.raises(ValueError, match=r"recovered with the body model smpl, .*give body_model=smpl"):
        write_film(video, of_smpl, body, video=None, on_frame_done=lambda: None, **settings)


def _wrong_calls(folder: Path) -> Iterator[tuple[Sequence[str], str]]:
    yield [], "Give one of prediction=FOLDER and motion=FILE"
    yield [f"prediction={folder}", "motion=a.npz"], "Give one of prediction=FOLDER and motion=FILE"
    yield [f"prediction={folder / 'empty'}"], "holds no prediction.json; give the folder"
    yield [f"prediction={folder / 'damaged'}"], "does not say which camera it is of"
    yield [f"prediction={folder / 'flat'}"], "does not say which camera it is of"
    yield [f"motion={folder / 'walk.npz'}", "views=[1,true]"], "must list some of"
    yield (
        [f"motion={folder / 'walk.npz'}", f"video={folder / 'in.mp4'}"],
        "no camera is known of, so it cannot be laid",
    )
    yield [f"motion={folder / 'walk.npz'}", "frames=[5,99]"], "are no frames of"
    yield [f"motion={folder / 'walk.npz'}", "out=a.gif"], "Films are written as .mp4"


def test_wrong_calls_are_one_sentence(tmp_path: Path, walker: MotionSequence) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "flat").mkdir()
    write_motion_npz(tmp_path / "walk.npz", walker)
    write_motion_npz(tmp_path / "damaged" / "motion.npz", walker)
    (tmp_path / "damaged" / "prediction.json").write_text('{"K": [[1, 2], [3, 4]], "image_size": [160, 240]}')
    write_motion_npz(tmp_path / "flat" / "motion.npz", walker)
    facts = {"K": [[0, 0, 0], [0, 0, 0], [0, 0, 1]], "image_size": [160, 240]}
    (tmp_path / "flat" / "prediction.json").write_text(json.dumps(facts))
    write_plain_video(tmp_path / "in.mp4", 20)
    for arguments, sentence in _wrong_calls(tmp_path):
        finished = run_tool("render_video.py", f"out={tmp_path / 'film.mp4'}", *arguments)
        assert finished.returncode == 2, finished.stderr
        assert sentence in finished.stderr
        assert finished.stderr.count("\n") == 1
    assert not (tmp_path / "film.mp4").exists()
