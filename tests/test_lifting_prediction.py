"""A detector's keypoints to 3D joints, with the lifting weights that come with the project."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_fixtures import composed, run_tool
from hydra.utils import instantiate
from lifting_fixtures import SMALL_MOTION
from PIL import Image

from core.camera import project
from core.keypoints.files import write_keypoints_npz
from core.keypoints.track import Track
from core.skeleton import COCO_17, H36M_17
from core.ssr_stf.lifting import LiftingModel, load_lifting_model
from core.ssr_stf.lifting_data import LiftingTestSequence
from core.ssr_stf.lifting_evaluation import Lifter
from core.ssr_stf.lifting_prediction import lift_track
from core.ssr_stf.lifting_protocols import find_lifting_protocol
from core.weights import ClipFormat
from mesh_head.weights import find_weights

CPU = torch.device("cpu")
SHARED_KEYPOINTS = Path(__file__).resolve().parents[2] / "shared" / "keypoints"


@pytest.fixture(scope="module")
def lifting() -> tuple[LiftingModel, ClipFormat]:
    return load_lifting_model(find_weights("shipped_lifting"))


@pytest.fixture(scope="module")
def sequences() -> list[LiftingTestSequence]:
    """Procedural motion before virtual cameras and a perfect detector."""
    config = composed("eval_pose", *SMALL_MOTION, "clips.noise=null")
    found: list[LiftingTestSequence] = instantiate(config["clips"], _convert_="all").test_sequences("test")
    return found


def track_of(sequence: LiftingTestSequence, fps: float = 30.0, first_frame: int = 7) -> Track:
    return Track(
        person_id="3",
        skeleton=H36M_17,
        frame_ids=np.arange(len(sequence.keypoints_px)) + first_frame,
        keypoints_px=sequence.keypoints_px,
        confidence=sequence.confidence,
        fps=fps,
        image_size=sequence.image_size,
    )


def test_a_track_is_lifted_as_in_evaluation(
    lifting: tuple[LiftingModel, ClipFormat], sequences: list[LiftingTestSequence]
) -> None:
    model, clip = lifting
    lifter = Lifter(model=model, normalisation="crop", window_frames=27, mirror_test=True, device=CPU)
    for sequence in sequences:
        assert sequence.K is not None
        K = torch.from_numpy(sequence.K).float()
        lifted = lift_track(model, clip, track_of(sequence), K, mirror_test=True, device=CPU)
        expected_mm = lifter.joints_mm(sequence, find_lifting_protocol("motion"))
        torch.testing.assert_close(1000 * lifted.joints, expected_mm, atol=1e-2, rtol=0)
        assert (lifted.unit, lifted.fps, lifted.image_size) == ("metre", 30.0, sequence.image_size)
        np.testing.assert_array_equal(lifted.frame_ids, np.arange(len(expected_mm)) + 7)
        # The person stands where the keypoints are: about as far away as truly, and seen in the same direction.
        assert lifted.pelvis_cam_m is not None
        true_m = torch.from_numpy(sequence.true_joints_mm[:, 0]).float() / 1000
        assert float((lifted.pelvis_cam_m - true_m).norm(dim=-1).mean()) < 0.15 * float(true_m[:, 2].mean())
        seen_px = project(lifted.joints + lifted.pelvis_cam_m[:, None], K)
        off_m = (seen_px - torch.from_numpy(sequence.keypoints_px)).norm(dim=-1) * true_m[:, 2:] / K[0, 0]
        assert float(off_m.mean()) < 0.08


def test_the_model_sees_its_own_frame_rate(
    lifting: tuple[LiftingModel, ClipFormat], sequences: list[LiftingTestSequence]
) -> None:
    model, clip = lifting
    sequence = sequences[0]
    keypoints_px = sequence.keypoints_px
    between = np.stack([keypoints_px[:-1], (keypoints_px[:-1] + keypoints_px[1:]) / 2], axis=1)
    twice = replace(
        track_of(sequence, fps=60.0),
        frame_ids=np.arange(2 * len(between)),
        keypoints_px=between.reshape(-1, 17, 2),
        confidence=np.ones((2 * len(between), 17), np.float32),
    )
    assert sequence.K is not None
    K = torch.from_numpy(sequence.K).float()
    once = lift_track(model, clip, track_of(sequence), K, mirror_test=False, device=CPU)
    lifted = lift_track(model, clip, twice, K, mirror_test=False, device=CPU)
    assert len(lifted.joints) == 2 * len(between)
    # The last frame is missing, which its neighbours notice.
    torch.testing.assert_close(lifted.joints[:80:2], once.joints[:40], atol=5e-3, rtol=0)
    middle = (lifted.joints[:78:2] + lifted.joints[2:80:2]) / 2
    torch.testing.assert_close(lifted.joints[1:79:2], middle, atol=1e-5, rtol=0)


def test_who_cannot_be_placed_is_named(
    lifting: tuple[LiftingModel, ClipFormat], sequences: list[LiftingTestSequence]
) -> None:
    track = track_of(sequences[0])
    unseen = replace(track, confidence=np.zeros_like(track.confidence))
    with pytest.raises(ValueError, match=r"^Person '3': in no frame are two keypoints seen"):
        lift_track(*lifting, unseen, mirror_test=False, device=CPU)


def test_joints_in_image_space_have_no_place(
    lifting: tuple[LiftingModel, ClipFormat], sequences: list[LiftingTestSequence]
) -> None:
    model, clip = lifting
    in_images = clip | {"unit": "half image width", "normalisation": "screen"}
    lifted = lift_track(model, in_images, track_of(sequences[0]), mirror_test=False, device=CPU)
    assert (lifted.unit, lifted.pelvis_cam_m) == ("half image width", None)


def test_shipped_lifting_weights_halve_the_error_of_one_pose(
    lifting: tuple[LiftingModel, ClipFormat], sequences: list[LiftingTestSequence]
) -> None:
    model, clip = lifting
    true_mm = [torch.from_numpy(sequence.true_joints_mm).float() for sequence in sequences]
    true_mm = [joints - joints[:, :1] for joints in true_mm]
    mean_pose_mm = torch.cat(true_mm).mean(dim=0)  # better than any pose that knows nothing of these people
    errors_mm, errors_of_pose_mm = [], []
    for sequence, joints_mm in zip(sequences, true_mm, strict=True):
        assert sequence.K is not None
        K = torch.from_numpy(sequence.K).float()
        lifted = lift_track(model, clip, track_of(sequence), K, mirror_test=True, device=CPU)
        errors_mm.append((1000 * lifted.joints - joints_mm).norm(dim=-1))
        errors_of_pose_mm.append((mean_pose_mm - joints_mm).norm(dim=-1))
    assert float(torch.cat(errors_mm).mean()) < 0.5 * float(torch.cat(errors_of_pose_mm).mean())


def test_a_keypoint_file_becomes_joints(sequences: list[LiftingTestSequence], tmp_path: Path) -> None:
    sequence = sequences[0]
    track = track_of(sequence).to_skeleton(COCO_17).track
    write_keypoints_npz(tmp_path / "keypoints.npz", track)
    out = tmp_path / "out"
    finished = run_tool(
        "predict_pose.py", f"input={tmp_path / 'keypoints.npz'}", f"out={out}", "sheet_frames=2"
    )
    assert finished.returncode == 0, finished.stderr
    assert {path.name for path in out.iterdir()} == {"pose.npz", "contact_sheet.png", "prediction.json"}
    with np.load(out / "pose.npz", allow_pickle=False) as pose:
        assert pose["joints"].shape == (60, 17, 3)
        assert pose["pelvis_cam_m"].shape == (60, 3)
        assert pose["joint_names"].tolist() == list(H36M_17.joint_names)
        np.testing.assert_array_equal(pose["frame_ids"], np.arange(60) + 7)
        assert (str(pose["unit"]), float(pose["fps"]), bool(pose["seen"].all())) == ("metre", 30.0, True)
        head, ankle = (pose["joints"][:, H36M_17.index(name), 1] for name in ("head", "left_ankle"))
        assert float((ankle - head).mean()) > 0.8  # y is down
        R_level_cam = pose["R_level_cam"]
        upright = np.median(pose["joints"] @ R_level_cam.T, axis=0)
        leaning = upright[H36M_17.index("thorax")] - upright[[3, 6]].mean(axis=0)
        assert np.abs(leaning[[0, 2]]).max() < 0.1 * -leaning[1]
    facts = json.loads((out / "prediction.json").read_text())
    np.testing.assert_allclose(facts["R_level_cam"], R_level_cam, atol=1e-6)
    assert f"look down by {round(facts['camera_pitch_deg'])}°, by how people stand" in finished.stdout
    assert (facts["person"], facts["frames"], facts["skeleton"]) == ("3", [7, 66], "coco_17")
    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width > 2 * 220

    for arguments, sentence in (
        (["weights=nowhere.safetensors"], "There is no weights file nowhere.safetensors"),
        (["weights=shipped"], "lifting weights are for"),
        (["person=9"], "no person '9'; it has 3"),
        (["sheet_frames=0"], "sheet_frames=0 is no such number"),
        (["camera_pitch_deg=120"], "camera_pitch_deg must be a number of at least -90"),
    ):
        finished = run_tool(
            "predict_pose.py", f"input={tmp_path / 'keypoints.npz'}", f"out={tmp_path}", *arguments
        )
        assert finished.returncode == 2, finished.stderr
        assert sentence in finished.stderr
        assert len(finished.stderr.strip().splitlines()) == 1, finished.stderr


@pytest.mark.skipif(not SHARED_KEYPOINTS.is_dir(), reason="no real keypoint files beside the checkout")
def test_real_keypoints_are_lifted(tmp_path: Path) -> None:
    finished = run_tool(
        "predict_pose.py", f"input={SHARED_KEYPOINTS / 'alphapose_halpe26.json'}", f"out={tmp_path}"
    )
    assert finished.returncode == 0, finished.stderr
    with np.load(tmp_path / "pose.npz", allow_pickle=False) as pose:
        joints = pose["joints"]
    thigh = np.linalg.norm(
        joints[:, H36M_17.index("left_knee")] - joints[:, H36M_17.index("left_hip")], axis=-1
    )
    assert len(joints) == 809
    assert 0.3 < np.median(thigh) < 0.6
    assert np.abs(np.diff(joints, axis=0)).max() < 0.4
