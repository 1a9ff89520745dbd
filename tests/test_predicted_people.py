"""Whom a prediction is of, where each one's goes, and what becomes of an earlier prediction there."""

import json
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from command_fixtures import ROOT, composed, run_tool
from keypoint_fixtures import write

from core.gravity import Level
from core.keypoints.track import Track
from core.skeleton import COCO_17, H36M_17
from core.video import read_video, video_written_whole
from mesh_head.prediction_files import absent_from, read_scene, require_frames
from mesh_head.prediction_folders import in_place_of_earlier_prediction, person_folders
from mesh_head.predictor import (
    choose_people,
    intrinsics,
    of_each_person,
)

sys.path.insert(0, str(ROOT / "tools"))
import predict_mesh
import predict_pose


def _seen_at(*places: tuple[float, float], person_id: str, num_frames: int = 2) -> Track:
    """Somebody of whom these joints are seen, with no image size."""
    keypoints_px = np.zeros((num_frames, 17, 2), np.float32)
    keypoints_px[:, : len(places)] = places
    confidence = np.zeros((num_frames, 17), np.float32)
    confidence[:, : len(places)] = 1
    return Track(
        person_id=person_id,
        skeleton=H36M_17,
        frame_ids=np.arange(num_frames),
        keypoints_px=keypoints_px,
        confidence=confidence,
        fps=30.0,
        image_size=None,
    )


def test_choices() -> None:
    first = _seen_at((5, 5), (100.5, 20), person_id="1")
    other = _seen_at((5, 5), (30, 40), person_id="0-2", num_frames=1)
    for person, expected in ((None, ["1"]), (1, ["1"]), ("0-2", ["0-2"]), ("all", ["1", "0-2"])):
        chosen = choose_people([first, other], person, source="a.json")
        assert [track.person_id for track in chosen.tracks] == expected
    with pytest.raises(ValueError, match=r"a\.json has no person 'x'; it has 1, 0-2"):
        choose_people([first, other], "x", source="a.json")
    known = replace(first, image_size=(720, 1280))
    assert intrinsics(known, 500.0)[0].tolist() == [500.0, 0.0, 640.0]
    with pytest.raises(ValueError, match="focal_px must be a number above 0"):
        intrinsics(known, 0.0)


def test_all_people_are_before_one_camera() -> None:
    """Of the least picture that holds them all, if nobody says how large it is."""
    first = _seen_at((5, 5), (100.5, 20), person_id="1")
    other = _seen_at((5, 5), (30, 40), person_id="2")
    (alone,), told, remarks, _ = choose_people([first, other], "2", source="a.json")
    assert (alone.image_size, told) == ((40, 30), {"image_size_is_assumed": True})
    tracks, _, remarks, _ = choose_people([first, other], "all", source="a.json")
    assert [track.image_size for track in tracks] == [(40, 101)] * 2
    assert len({tuple(intrinsics(track, None).flatten().tolist()) for track in tracks}) == 1
    assert ["40 × 101 (height × width) is assumed" in remark for remark in remarks] == [True]
    known = [replace(track, image_size=(720, 1280)) for track in (first, other)]
    chosen = choose_people(known, "all", source="a.json")
    assert (chosen.facts, chosen.remarks) == ({"image_size_is_assumed": False}, [])
    assert [track.image_size for track in chosen.tracks] == [(720, 1280)] * 2


def test_of_all_who_are_seen_for_moments_are_left_out_if_asked() -> None:
    people = [_seen_at((5, 5), (100, 20), person_id=str(n), num_frames=n) for n in (9, 3, 2)]
    people = [replace(person, image_size=(720, 1280)) for person in people]
    for min_frames, kept, left_out in ((1, ["9", "3", "2"], None), (3, ["9", "3"], "2"), (4, ["9"], "3, 2")):
        chosen = choose_people(people, "all", source="a.json", min_frames=min_frames)
        assert [track.person_id for track in chosen.tracks] == kept
        sentences = [f"Left out, as detected in fewer than {min_frames} frames: {left_out}."]
        assert chosen.remarks == (sentences if left_out else [])
    with pytest.raises(
        ValueError, match=r"Nobody in a\.json is detected in min_frames=10 frames; the most is 9"
    ):
        choose_people(people, "all", source="a.json", min_frames=10)
    assert choose_people(people, "2", source="a.json", min_frames=10).tracks[0].person_id == "2"
    with pytest.raises(ValueError, match="min_frames must be a whole number of at least 1"):
        choose_people(people, "all", source="a.json", min_frames=0)


def test_stills_have_cameras_of_their_own() -> None:
    first = _seen_at((5, 5), (100.5, 20), person_id="a", num_frames=1)
    other = _seen_at((5, 5), (30, 40), person_id="b", num_frames=1)
    tracks, told, remarks, one_camera = choose_people([first, other], "all", source="a.csv", one_camera=False)
    assert not one_camera
    assert [track.image_size for track in tracks] == [(20, 101), (40, 30)]
    assert told == {"image_size_is_assumed": True}
    assert ["The images' sizes are not known; of each the least" in remark for remark in remarks] == [True]
    joints_m = torch.zeros(2, 1, 17, 3)
    thorax, ankles = H36M_17.index("thorax"), [H36M_17.index(f"{side}_ankle") for side in ("left", "right")]
    joints_m[:, :, thorax] = torch.tensor([0.0, -1.4, 0.0])
    joints_m[1, :, thorax, 2] = -0.5  # leans towards the camera
    joints_m[:, :, ankles] = 0.0
    alone = [Level.of(None, of_one) for of_one in joints_m]
    assert alone[0].pitch_deg == pytest.approx(0, abs=0.1)
    assert alone[1].pitch_deg == pytest.approx(19.7, abs=0.1)
    for one_camera, pitches in ((False, [level.pitch_deg for level in alone]), (True, None)):
        levels = Level.of_people(None, list(joints_m), one_camera=one_camera)
        if pitches is None:
            assert levels[0] is levels[1]
        else:
            assert [level.pitch_deg for level in levels] == pitches


def test_it_is_said_of_whom_most_is_made_up() -> None:
    track = _seen_at((5, 5), (100.5, 20), person_id="1", num_frames=4)
    sparse = replace(track, frame_ids=np.array([0, 33, 66, 99]), image_size=(720, 1280))
    (remark,) = choose_people([sparse], None, source="a.json").remarks
    assert remark.startswith(
        "Person 1 is detected in 4 of 100 frames, in the median 33 apart; if they follow"
    )
    hidden = replace(sparse, frame_ids=np.array([0, 1, 2, 9]))
    (remark,) = choose_people([hidden], None, source="a.json").remarks
    assert "in the median 1 apart. What lies between is drawn" in remark
    assert not choose_people([replace(sparse, frame_ids=np.array([0, 2, 4, 6]))], None, source="a").remarks


def test_who_never_shows_two_keypoints_is_left_out_or_named() -> None:
    person = _seen_at((5, 5), (100, 20), person_id="1")
    ghost = _seen_at((900, 900), person_id="2", num_frames=9)
    chosen = choose_people([ghost, person], "all", source="a.json")
    assert [track.person_id for track in chosen.tracks] == ["1"]
    assert chosen.tracks[0].image_size == (20, 100)
    assert chosen.remarks[0] == "Left out, as no frame shows two of the model's joints: 2."
    for whom in (None, "2"):
        with pytest.raises(
            ValueError,
            match=r"In no frame of a\.json are two joints of person '2' .* with person=ID, or person=all",
        ):
            choose_people([ghost, person], whom, source="a.json")
    with pytest.raises(
        ValueError, match=r"In no frame of a\.json are two joints of a person seen that the model reads"
    ):
        choose_people([ghost], "all", source="a.json")
    # An eye and an ear are none of the model's joints.
    face = replace(_seen_at((5, 5), person_id="3"), skeleton=COCO_17)
    face.confidence[:] = 0
    face.confidence[:, [1, 3]] = 1
    face.keypoints_px[:, 3] = 50
    with pytest.raises(ValueError, match=r"two joints of person '3' .* before the camera\.$"):
        choose_people([face], None, source="a.json")
    with pytest.raises(ValueError, match=r"with person=ID\.$"):
        choose_people([ghost, person], None, source="a.json", may_be_all=False)
    with pytest.raises(ValueError, match=r"no person 'x'; it has 1\.$"):
        choose_people([person], "x", source="a.json")


def test_of_whom_nothing_can_be_made_is_left_out_of_all() -> None:
    tracks = [_seen_at((5, 5), (100, 20), person_id=name) for name in ("1", "2", "3")]

    def recover(track: Track) -> int:
        if track.person_id != "3":
            raise ValueError(f"Person {track.person_id} is behind the camera.")
        return 7

    shown: list[tuple[str, int | None]] = []
    done: list[int] = []

    def shown_as(what: str, total: int | None) -> AbstractContextManager[Callable[[], None]]:
        shown.append((what, total))
        return nullcontext(lambda: done.append(1))

    kept, people, remarks = of_each_person(tracks, recover, shown_as, may_leave_out=True)
    assert (kept, people) == (tracks[2:], [7])
    assert remarks == [f"Left out. Person {n} is behind the camera." for n in (1, 2)]
    assert shown == [("Recovering 3 people, 6 frames", 3)]
    assert len(done) == 3
    of_each_person(tracks[2:], recover, shown_as, may_leave_out=False)
    assert shown[1] == ("Recovering person 3, 2 frames", None)
    with pytest.raises(ValueError, match="Person 1 is"):
        of_each_person(tracks, recover, shown_as, may_leave_out=False)
    with pytest.raises(ValueError, match="Person 1 is"):
        of_each_person(tracks[:2], recover, shown_as, may_leave_out=True)


def test_frames_are_known_before_the_work_and_for_whom_they_are_not() -> None:
    long, short = (_seen_at((5, 5), person_id=name, num_frames=n) for name, n in (("1", 9), ("2", 3)))
    late = replace(short, person_id="3", frame_ids=short.frame_ids + 20)
    require_frames([long, short, late], sheet_frames=8)
    for frame, absent in ((None, []), (2, ["3"]), (3, ["2", "3"]), (21, ["1", "2"])):
        require_frames([long, short, late], frame=frame, sheet_frames=8)
        assert absent_from(frame, [long, short, late]) == absent
    for frame in (23, 10, -1, 2.0, True, "x"):
        with pytest.raises(
            ValueError, match=rf"frame={frame} is not in any track; together they span 0 to 22; give"
        ):
            require_frames([long, short, late], frame=frame, sheet_frames=8)
    with pytest.raises(
        ValueError, match=r"frame=3 is not in the track of person '2', which spans 0 to 2; give another"
    ):
        require_frames([short], frame=3, sheet_frames=8)
    with pytest.raises(ValueError, match="sheet_frames=0 is no such number"):
        require_frames([long], sheet_frames=0)


@pytest.mark.parametrize(
    "name", ["x_up/left", "../../escaped", "..", "", ".hidden", "a\\b", "a\nb", "a\0b", "\ud800", "é" * 101]
)
def test_an_id_that_is_no_folders_name_is_refused(tmp_path: Path, name: str) -> None:
    tracks = [_seen_at((5, 5), person_id=person) for person in ("0-2 é.x", name)]
    assert person_folders(tmp_path, tracks[1:], source="a.csv") == [tmp_path]
    assert person_folders(tmp_path, [tracks[0]] * 2, source="a.csv") == [tmp_path / "person_0-2 é.x"] * 2
    with pytest.raises(
        ValueError, match=r"^a\.csv has a person .*, and no folder can safely have that name"
    ) as said:
        person_folders(tmp_path, tracks, source="a.csv")
    assert str(said.value).isprintable()


FILES = {
    "mesh": ("motion.npz", "motion.glb", "mesh.obj", "contact_sheet.png", "prediction.json"),
    "pose": ("pose.npz", "contact_sheet.png", "prediction.json"),
}
OURS = {"source": "a", "person": "1", "skeleton": "h36m_17", "frames": [0, 1], "fps": 30.0}


def _leave(folder: Path, kind: str, **facts: Any) -> list[Path]:
    """What a prediction leaves, as far as names go."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES[kind]:
        (folder / name).write_bytes(b"")
    told = OURS | {"mesh": {"body_model": "open", "video": None}, "pose": {"unit": "metre"}}[kind] | facts
    (folder / "prediction.json").write_text(json.dumps(told))
    return [folder / name for name in FILES[kind]]


def _predict(out: Path, people: Sequence[str], kind: str = "mesh", **facts: Any) -> set[str]:
    """A prediction in place of an earlier one; all files that are there then."""
    folders = [out / f"person_{person}" for person in people] or [out]
    with in_place_of_earlier_prediction(out, folders) as unfinished:
        for folder in unfinished:
            _leave(folder, kind, **facts)
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def _of(kind: str, *people: str) -> set[str]:
    """What has to be there after it."""
    names = {f"person_{person}/{name}" for person in people for name in FILES[kind]}
    return names | {"prediction.json"} if people else set(FILES[kind])


def test_what_an_earlier_prediction_left_goes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for people, kind in (
        *(([], "mesh"), (["1", "2"], "mesh"), (["2", "3"], "mesh"), ([], "mesh"), ([], "pose"), ([], "mesh")),
        *((["1", "2"], "pose"), (["1", "3"], "mesh"), ([], "pose")),
    ):
        assert _predict(out, people, kind) == _of(kind, *people)
        assert {path.name for path in out.iterdir() if path.is_dir()} == {f"person_{name}" for name in people}


@pytest.mark.parametrize("people", [[], ["1", "2"], ["2", "3"]])
def test_all_stays_as_it_was_if_a_prediction_fails(tmp_path: Path, people: list[str]) -> None:
    def fail(out: Path) -> None:
        folders = [out / f"person_{person}" for person in people] or [out]
        with in_place_of_earlier_prediction(out, folders) as unfinished:
            _leave(unfinished[0], "mesh", fps=60.0)
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail(tmp_path / "new")
    assert not list(tmp_path.iterdir())
    before = _predict(tmp_path, ["1", "2"])
    content = {name: (tmp_path / name).read_bytes() for name in before}
    with pytest.raises(OSError, match="disk full"):
        fail(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()} == before
    assert {name: (tmp_path / name).read_bytes() for name in before} == content
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"person_1", "person_2"}


def test_a_film_goes_with_the_prediction_that_drew_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    film = out / "film.mp4"
    for drawn_over, is_drawn in (("in.mp4", True), (None, False)):
        for people in ([], ["1", "2"]):
            _predict(out, people, video=drawn_over)
            film.write_bytes(b"film")
            assert ("film.mp4" in _predict(out, [])) is not is_drawn
    # Predictions of before do not say.
    (out / "prediction.json").write_text(json.dumps(OURS | {"body_model": "open"}))
    assert "film.mp4" not in _predict(out, [])


def _no_prediction(out: Path) -> None:
    (out / "prediction.json").unlink()


def _another_programs_prediction(out: Path) -> None:
    (out / "prediction.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": []}], "version": 1}))


def _a_list_that_leads_elsewhere(out: Path) -> None:
    (out / "prediction.json").write_text(json.dumps({"people": ["person_/../../beside", "..", "person_1"]}))


def _a_damaged_file(out: Path) -> None:
    (out / "prediction.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    "changed", [_no_prediction, _another_programs_prediction, _a_list_that_leads_elsewhere, _a_damaged_file]
)
def test_what_no_prediction_of_ours_left_stays(tmp_path: Path, changed: Callable[[Path], None]) -> None:
    out = tmp_path / "out"
    _leave(tmp_path / "beside", "mesh")
    _predict(out, [], video="in.mp4")
    (out / "film.mp4").write_bytes(b"film")
    changed(out)
    assert _predict(out, ["7", "8"]) == _of("mesh", "7", "8") | _of("mesh") | {"film.mp4"}
    assert len(list((tmp_path / "beside").iterdir())) == len(FILES["mesh"])


def test_a_users_own_files_stay_among_those_that_go(tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    _predict(out, ["1", "2"])
    _leave(elsewhere, "mesh")
    _leave(out / "person_9", "mesh")  # which the prediction does not list
    (out / "person_1" / "motion_obj").mkdir()
    for mine in ("notes.txt", "person_1/motion_obj/0.obj"):
        (out / mine).write_bytes(b"mine")
    told = json.loads((out / "prediction.json").read_text())["people"]
    (out / "person_link").symlink_to(elsewhere)
    (out / "prediction.json").write_text(json.dumps({"people": [*told, "person_link"]}))
    left = _predict(out, [])
    kept = {f"person_{name}/{file}" for name in ("9",) for file in FILES["mesh"]}
    assert left - {f"person_link/{name}" for name in FILES["mesh"]} == (
        _of("mesh") | kept | {"notes.txt", "person_1/motion_obj/0.obj"}
    )
    assert len(list(elsewhere.iterdir())) == len(FILES["mesh"])
    assert not (out / "person_2").exists()


def test_a_prediction_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = _predict(out, [])
    (out / "person_1" / "contact_sheet.png").mkdir(parents=True)
    with (
        pytest.raises(ValueError, match=r"contact_sheet\.png is a folder, and a file is to be"),
        in_place_of_earlier_prediction(out, [out / "person_1"]),
    ):
        pass
    (out / "person_1" / "contact_sheet.png").rmdir()
    (out / "person_1").rmdir()
    with pytest.raises(ValueError, match="disk"), in_place_of_earlier_prediction(out, [out / "person_1"]):
        raise ValueError("The disk is full.")
    assert {path.name for path in out.iterdir()} == before


# Somebody who stands, COCO-17.
STANDS = [
    *((0, -42), (3, -44), (-3, -44), (5, -42), (-5, -42), (10, -25), (-10, -25), (13, -12), (-13, -12)),
    *((14, 0), (-14, 0), (6, 0), (-6, 0), (7, 23), (-7, 23), (7, 46), (-7, 46)),
]


def _detections(tmp_path: Path, *people: tuple[int, float, int]) -> Path:
    """AlphaPose's file of people: their number, where they stand, in how many frames; and of a ghost, 9."""
    entries = []
    for number, x, num_frames in (*people, (9, 300.0, 3)):
        for frame in range(num_frames):
            seen = [number != 9 or joint == 0 for joint in range(17)]
            places = [(x + dx, 100 + dy, 0.9 * s) for (dx, dy), s in zip(STANDS, seen, strict=True)]
            keypoints = [float(value) for place in places for value in place]
            entries.append({"image_id": f"{frame}.jpg", "keypoints": keypoints, "score": 1.0, "idx": number})
    return write(tmp_path, entries)


def test_predictions_one_after_the_other_into_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one person, of all, and of one again, by `predict_mesh.py`; what fails leaves no trace."""
    out = tmp_path / "out"

    def predict(path: Path, *settings: str) -> set[str]:
        small = ["sheet_frames=1", "mirror_test=false", "device=cpu", f"out={out}"]
        predict_mesh.main(composed("predict_mesh", *small, f"input={path}", *settings))
        return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}

    out.mkdir()
    (out / "film.mp4").write_bytes(b"mine")
    people = _detections(tmp_path, (1, 60.0, 4), (2, 180.0, 2))
    for settings, sentence in (
        (["weights=nowhere.safetensors"], "nowhere"),
        (["person=5"], "has no person 5"),
        (["person=9"], "two joints of person '9'"),
        (["person=all", "frame=4", "weights=nowhere.safetensors"], "any track; together they span 0 to 3"),
        (["frame=4", "weights=nowhere.safetensors"], "person '1', which spans 0 to 3"),
    ):
        with pytest.raises(ValueError, match=sentence):
            predict(people, *settings)
        assert [path.name for path in out.iterdir()] == ["film.mp4"]
    assert predict(people) == _of("mesh") | {"film.mp4"}
    capsys.readouterr()
    assert predict(people, "person=all", "frame=1") == _of("mesh", "1", "2") | {"film.mp4"}
    said = capsys.readouterr().out
    assert "Left out, as no frame shows two of the model's joints: 9." in said
    assert said.count("is assumed, the least that holds all keypoints") == 1
    film = read_scene(out)  # refuses people before different cameras
    assert film.camera is not None
    assert film.camera.image_size == (146, 194)
    told = json.loads((out / "person_2" / "prediction.json").read_text())
    assert (told["image_size_is_assumed"], told["video"], told["mesh_frame"]) == (True, None, 1)
    other = json.loads((out / "person_1" / "prediction.json").read_text())
    assert told["ground_offset_yup_m"] == other["ground_offset_yup_m"]
    lowest_m = [trimesh.load(out / f"person_{n}" / "mesh.obj", process=False).bounds[0, 1] for n in (1, 2)]
    assert np.abs(lowest_m).max() < 0.3
    # Somebody has left by then, and has no mesh, nor that of the prediction before.
    assert predict(people, "person=all", "frame=3") == _of("mesh", "1", "2") - {"person_2/mesh.obj"} | {
        "film.mp4"
    }
    said = capsys.readouterr().out
    assert "Not in frame 3, so without a mesh.obj: 2." in said
    assert said.count("motion.glb, mesh.obj") == 1
    frames = [json.loads((out / f"person_{n}" / "prediction.json").read_text())["mesh_frame"] for n in (1, 2)]
    assert frames == [3, None]
    assert predict(people) == _of("mesh") | {"film.mp4"}


def test_a_film_that_is_interrupted_says_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = _detections(tmp_path, (1, 60.0, 4))
    video = tmp_path / "in.mp4"
    with video_written_whole(video, fps=30.0, image_size=(160, 200)) as add:
        for _ in range(4):
            add(np.zeros((160, 200, 3), np.uint8))
    out = tmp_path / "my out"

    def interrupted(*_: object, **__: object) -> None:
        assert {path.name for path in out.iterdir()} == _of("mesh")
        raise KeyboardInterrupt("Terminated.")

    monkeypatch.setattr("mesh_head.prediction_files.write_film", interrupted)
    with pytest.raises(KeyboardInterrupt) as said:
        predict_mesh.main(
            composed(
                "predict_mesh",
                f"input={people}",
                f"video={video}",
                f"out={out}",
                "device=cpu",
                "sheet_frames=1",
            )
        )
    sentence, _, command = str(said.value).partition(": python ")
    assert sentence == f"Terminated. The prediction in {out} is complete but for the film"
    tool, *settings = shlex.split(command)
    finished = run_tool(Path(tool).name, *settings, "height_px=128")  # as a shell would run it
    assert finished.returncode == 0, finished.stderr
    assert len(list(read_video(out / "film.mp4"))) == 4


def test_lifted_people_stay_within_their_folder(tmp_path: Path) -> None:
    """Stills are named by whoever has named their pictures and classes."""
    out = tmp_path / "a" / "b" / "out"
    landmarks = ",".join(f"{100 + 7 * j % 40},{50 + 3 * j},0" for j in range(33))

    def lift(classes: Sequence[str]) -> set[str]:
        stills = tmp_path / "stills.csv"
        stills.write_text("".join(f"a.png,{name},{landmarks}\n" for name in classes))
        small = ["sheet_frames=1", "mirror_test=false", "device=cpu", f"out={out}"]
        predict_pose.main(composed("predict_pose", *small, f"input={stills}", "person=all"))
        return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}

    for classes in (["up/left", "down"], ["down", "/../../../escaped"]):
        with pytest.raises(
            ValueError, match=r"stills\.csv has a person 'a_.*, and no folder can safely have that"
        ):
            lift(classes)
        assert [path.name for path in tmp_path.iterdir()] == ["stills.csv"]
    assert lift(["up", "down"]) == _of("pose", "a_up", "a_down")
    assert lift(["up", "left"]) == _of("pose", "a_up", "a_left")
    told = json.loads((out / "person_a_up" / "prediction.json").read_text())
    assert told["fps_is_assumed"] is told["image_size_is_assumed"] is True
