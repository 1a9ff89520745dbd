"""Training on several data sets at once, each with what it knows."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_fixtures import composed
from mesh_fixtures import mesh_sequence, write_mesh_set, write_three_dpw

from body_models.open_body import load_open_body, load_open_body_regressor
from body_models.parameters import BodyParameters
from core.camera import VirtualCameraSampler, project, solve_translation
from core.datasets.mesh_sequences import Gender, MeshSequence
from core.datasets.preparation import PREPARERS
from core.datasets.three_dpw import read_three_dpw
from core.keypoints.clip import denormalise
from core.progress import ProgressDisplay
from core.random_seeds import seeded_generator
from core.rotations import rotvec_to_rotmat
from core.skeleton import COCO_17, H36M_17
from core.training_run import run_training
from mesh_head.losses import MeshLoss
from mesh_head.mixture import MixedData, Mixture, MotionClipSource
from mesh_head.motion_data import (
    ClipSynthesizer,
    MotionAugmentation,
    MotionLibrary,
    ProceduralMotion,
)
from mesh_head.recorded_data import RecordedFolder, RecordedLibrary, _starts
from mesh_head.supervision import BodyPoints, SupervisedBody
from mesh_head.training import MeshRecoveryTask

CPU = torch.device("cpu")
FOLDER = RecordedFolder(root="set", split="train", fps=30.0, shape_space="open", gendered=True)
LOSS = MeshLoss(
    joints=1.0, vertices=1.0, velocity=1.0, root_rotation=1.0, body_rotation=1.0, betas=1.0, betas_size=0.1
)
NO_BODY: dict[str, Any] = {"poses_rotvec": None, "betas": None}


def _supervised(gender: Gender = "neutral") -> SupervisedBody:
    ids = np.arange(0, 6000, 200)
    return SupervisedBody(
        body=load_open_body(gender),
        regressor=load_open_body_regressor("h36m_17"),
        num_vertices=len(ids),
        sampled_vertex_ids=ids,
    )


def _library(sequences: list[MeshSequence], **changes: Any) -> RecordedLibrary:
    arguments: dict[str, Any] = {
        "folder": FOLDER,
        "body": _supervised(),
        "body_model": "open",
        "body_of_gender": _supervised,
        "max_clip_frames": 5,
        "mirror_probability": 0.0,
    }
    return RecordedLibrary(sequences, **(arguments | changes))


def _config(*overrides: str) -> dict[str, Any]:
    small = [
        "data=mixed",
        "backbone.weights=null",
        "backbone.context_dim=64",
        "backbone.dim=16",
        "schedule.max_seconds=null",
        "schedule.max_steps=2",
        "schedule.validation_interval=1",
        "data.sets.procedural.num_sequences={train:1,val:1}",
        "data.sets.procedural.num_frames=20",
        "curriculum=[{until:1.0,num_frames:9,batch_size:6,active_blocks:null}]",
        "evaluation.max_stretches=1",
        "trainer.accelerator=cpu",
    ]
    return composed("train_mesh", *small, *overrides)


def test_weights_are_honoured() -> None:
    source = MotionClipSource(
        MotionLibrary(
            ProceduralMotion(num_sequences={"train": 1}, num_frames=10, fps=30.0, seed=0).read("train"),
            max_clip_frames=5,
        ),
        MotionAugmentation(mirror_probability=0.5, reverse_probability=0.0, betas_std=1.0),
        ClipSynthesizer(body=_supervised(), cameras=VirtualCameraSampler(), noise=None),
    )
    weights = {"a": 3.0, "b": 1.0, "c": 0.05}
    mixture = Mixture(dict.fromkeys(weights, source), weights, fps=30.0)
    counts = [mixture.counts(16, 0, step, 0) for step in range(2000)]
    assert all(sum(count.values()) == 16 for count in counts)
    for name, weight in weights.items():
        exact = 16 * weight / 4.05
        given = np.array([count[name] for count in counts])
        assert (np.abs(given - exact) < 1).all()
        assert abs(given.mean() - exact) < 0.05
    assert counts[:5] == [mixture.counts(16, 0, step, 0) for step in range(5)]

    def drawn(*seeds: int) -> list[torch.Tensor]:
        return [clip.keypoints for clip, _ in mixture.draw(8, 5, *seeds, device=CPU)]

    assert all(torch.equal(a, b) for a, b in zip(drawn(0, 7, 0), drawn(0, 7, 0), strict=True))
    assert not torch.equal(drawn(0, 7, 0)[0], drawn(0, 7, 1)[0])
    assert not torch.equal(drawn(0, 7, 0)[0][0], drawn(0, 7, 0)[1][0])  # sources draw unlike numbers


@pytest.mark.parametrize("mirror_probability", [0.0, 1.0])
def test_recorded_target_is_what_the_keypoints_show(mirror_probability: float) -> None:
    library = _library(
        [mesh_sequence(seed=1), mesh_sequence(12, seed=2)], mirror_probability=mirror_probability
    )
    recorded = library(6, 5, seeded_generator(0, device=CPU))
    clip, target = recorded.normalised()
    assert target.parameters is not None
    assert target.are_betas_known
    points = _supervised()(target.parameters).relative_to_pelvis()
    torch.testing.assert_close(points.joints_m, target.points.joints_m, atol=1e-5, rtol=0)
    torch.testing.assert_close(points.vertices_m, target.points.vertices_m, atol=1e-5, rtol=0)
    # Projected from where the keypoints put it, the target is the keypoints; the open body is symmetric to 1 mm.
    joints_cam = target.points.joints_m @ clip.R_crop_cam[:, None]
    K = recorded.K[:, None].expand(-1, 5, -1, -1)
    pelvis = solve_translation(joints_cam, recorded.keypoints_px, recorded.confidence, K)
    error_px = (project(joints_cam + pelvis[..., None, :], K) - recorded.keypoints_px).norm(dim=-1)
    assert error_px.max() < (0.05 if mirror_probability == 0 else 2.0)
    torch.testing.assert_close(denormalise(clip, recorded.K), recorded.keypoints_px, atol=1e-2, rtol=0)


def test_truth_has_no_loss() -> None:
    _, target = _library([mesh_sequence()])(2, 5, seeded_generator(0, device=CPU)).normalised()
    assert target.parameters is not None
    terms = LOSS.terms(target.parameters, target.points, target)
    assert all(value < 1e-5 for name, value in terms.items() if name != "betas_size")


def test_people_are_posed_as_of_their_gender() -> None:
    sequences = [mesh_sequence(seed=1, gender="female"), mesh_sequence(seed=2, gender="male")]
    library = _library(sequences)
    recorded = library(12, 5, seeded_generator(0, device=CPU))
    assert recorded.parameters_cam is not None
    assert not recorded.are_betas_known  # they are of other shape spaces than the neutral body's
    known: list[Gender] = ["female", "male"]
    for clip in range(12):
        betas = recorded.parameters_cam.betas[clip, 0]
        number = [torch.allclose(betas, torch.from_numpy(s.betas).float()) for s in sequences].index(True)
        one = recorded.parameters_cam.select(slice(clip, clip + 1))
        expected = _supervised(known[number])(one).joints_m
        torch.testing.assert_close(recorded.points_cam.joints_m[clip], expected[0], atol=1e-5, rtol=0)
    assert _library(sequences, folder=replace(FOLDER, gendered=False)).are_betas_known


def test_betas_of_another_body_model_are_left_alone() -> None:
    library = _library([mesh_sequence(gender="male")], folder=replace(FOLDER, shape_space="smpl"))
    recorded = library(2, 5, seeded_generator(0, device=CPU))
    assert recorded.parameters_cam is not None
    assert not recorded.parameters_cam.betas.any()
    _, target = recorded.normalised()
    assert "betas" not in LOSS.terms(recorded.parameters_cam, recorded.points_cam, target)


def test_joints_alone_train_without_vertices() -> None:
    joints = np.random.default_rng(0).normal(size=(20, 17, 3))
    recorded = _library([mesh_sequence(joints_cam_m=joints, **NO_BODY)])(
        3, 5, seeded_generator(0, device=CPU)
    )
    _, target = recorded.normalised()
    assert target.parameters is None
    predicted = BodyParameters.from_rotvec(0.1 * torch.ones(3, 5, 24, 3), torch.zeros(3, 1, 10))
    points = _supervised()(predicted)
    vertices = points.vertices_m.clone().requires_grad_()
    terms = LOSS.terms(predicted, BodyPoints(points.joints_m.requires_grad_(), vertices), target)
    assert list(terms) == ["joints", "velocity", "betas_size"]
    LOSS.total(terms).backward()
    assert vertices.grad is None


def test_clips_lie_in_evaluated_stretches_without_gaps() -> None:
    evaluated = np.ones(20, bool)
    evaluated[[4, 12]] = False
    frame_ids = np.arange(20) + 3 * (np.arange(20) >= 16)
    sequence = mesh_sequence(evaluated=evaluated, frame_ids=frame_ids)

    def naive(span: int) -> list[int]:
        spans = [slice(start, start + span) for start in range(20 - span + 1)]
        return [
            s.start
            for s in spans
            if evaluated[s].all() and frame_ids[s.stop - 1] - frame_ids[s.start] == span - 1
        ]

    for span in (1, 2, 3, 4, 7, 8):
        assert _starts(sequence, span).tolist() == naive(span)


@pytest.mark.parametrize(("fps", "stride"), [(30.0, 1), (25.0, 1), (60.0, 2), (50.0, 2), (10.0, 0), (1.0, 0)])
def test_frame_rates(fps: float, stride: int) -> None:
    """Every n-th frame where that gives about the wanted rate; else a frame that stands still."""
    sequence = mesh_sequence(fps=fps, keypoints_px=np.arange(20.0)[:, None, None] * np.ones((17, 2)))
    library = _library([sequence])
    clips = library(8, 5, seeded_generator(0, device=CPU)).keypoints_px[:, :, 0, 0]
    torch.testing.assert_close(clips.diff(dim=1), torch.full((8, 4), float(stride)))


def test_pure_motion_is_what_it_was() -> None:
    """One set of motion: loss and gradients are those of the plain formula, bit by bit."""
    task = MeshRecoveryTask(_config("data.weights.procedural=3"))
    phase = task.curriculum.phases[0]
    source = next(iter(task.mixture.sources.values()))
    grads, totals = [], []
    for way in ("mixture", "plain"):
        task.model.zero_grad()
        if way == "mixture":
            total, _ = task.losses_of(task.training_clips(5, phase), task.loss)
        else:
            generator = seeded_generator(0, 5, 0, device=CPU)
            clips = source.augmentation(source.library.sample(6, 9, generator), generator)
            clip, target = task.synthesizer(clips, generator).normalised()
            predicted = task.model(clip.keypoints)
            points = task.synthesizer.body(predicted).relative_to_pelvis()
            total = task.loss.total(task.loss.terms(predicted, points, target))
        total.backward()
        totals.append(total)
        grads.append([p.grad.clone() for p in task.model.parameters() if p.grad is not None])
    assert torch.equal(totals[0], totals[1])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_every_clip_weighs_the_same_in_shares_of_unlike_size() -> None:
    task = MeshRecoveryTask(_config("data.weights.procedural=3"))
    phase = task.curriculum.phases[0]
    (one,), (five,) = (task.training_clips(0, replace(phase, batch_size=size)) for size in (1, 5))
    with torch.no_grad():
        total, terms = task.losses_of([one, five], task.loss)
        (total_of_one, terms_of_one), (total_of_five, terms_of_five) = (
            task.losses_of([part], task.loss) for part in (one, five)
        )
    assert not torch.isclose(total_of_one, total_of_five, rtol=0.01)
    torch.testing.assert_close(total, (total_of_one + 5 * total_of_five) / 6)
    for name, value in terms.items():
        torch.testing.assert_close(value, (terms_of_one[name] + 5 * terms_of_five[name]) / 6)


def test_archive_to_training_step(tmp_path: Path) -> None:
    """3DPW's own files, prepared, beside joints of another set and procedural motion, in one batch."""
    write_three_dpw(tmp_path / "3DPW", "train", "a", num_images=10)
    out = tmp_path / "prepared"
    PREPARERS["3dpw"](tmp_path / "3DPW", out, on_progress=lambda done, of: None, workers=1)
    joints = np.random.default_rng(0).normal(size=(20, 17, 3))
    sequence = mesh_sequence(joints_cam_m=joints, **NO_BODY)
    write_mesh_set(tmp_path / "joints", "train", sequence)
    roots = [f"data.sets.three_dpw.root={out}", f"data.sets.h36m_mesh.root={tmp_path / 'joints'}"]
    task = MeshRecoveryTask(_config(*roots))
    assert list(task.mixture.sources) == ["three_dpw", "h36m_mesh", "procedural"]
    batch = task.training_clips(0, task.curriculum.phases[0])
    assert [len(clip.keypoints) for clip, _ in batch] == [2, 2, 2]
    total, terms = task.losses_of(batch, task.loss)
    assert set(terms) == set(LOSS.__dataclass_fields__)
    total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.model.head.parameters())
    # A total over parts is that over clips: terms that all sets know are plain means.
    predicted = task.model(torch.cat([clip.keypoints for clip, _ in batch]))
    joints_m = task.synthesizer.body(predicted).relative_to_pelvis().joints_m
    true_m = torch.cat([target.points.joints_m for _, target in batch])
    torch.testing.assert_close(terms["joints"], (joints_m - true_m).norm(dim=-1).mean(), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_resumed_run_is_the_run(tmp_path: Path) -> None:
    """What is drawn depends on seed, step and process alone, however many sets it comes from."""
    write_mesh_set(tmp_path / "set", "train", mesh_sequence())
    steady = ["schedule.warmup_steps=0", "schedule.final_learning_rate_fraction=1.0"]
    root = f"data.sets.three_dpw.root={tmp_path / 'set'}"

    def history(out: str, *overrides: str) -> list[dict[str, float]]:
        config = _config(root, *steady, f"out={tmp_path / out}", *overrides)
        entries = run_training(MeshRecoveryTask, config, ProgressDisplay()).metrics["history"]
        return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]

    whole = history("whole", "schedule.max_steps=4")
    assert history("parts", "schedule.max_steps=2") == whole[:2]
    assert history("parts", "schedule.max_steps=4", "resume=true") == whole


def test_ground_truth_as_prediction_is_without_error(tmp_path: Path) -> None:
    """From 3DPW's own files to the parameters in the camera: they are the body that its keypoints show."""
    write_three_dpw(tmp_path, "test", "a")
    for sequence in read_three_dpw(tmp_path / "sequenceFiles/test/a.pkl"):
        assert sequence.poses_rotvec is not None
        body = load_open_body(sequence.gender).double()
        betas = torch.from_numpy(sequence.betas)
        root, translation = sequence.parameters_cam(body.shape(betas).rest_joints_m[0])
        rotmat = rotvec_to_rotmat(torch.from_numpy(sequence.poses_rotvec[:, 1:]))
        vertices = body(BodyParameters(root, rotmat, betas[None], translation)).vertices_m
        coco = load_open_body_regressor("coco_17").double()(vertices)
        seen = project(coco, torch.from_numpy(sequence.K))
        for joint in ("left_wrist", "right_ankle", "left_knee", "right_shoulder"):
            np.testing.assert_allclose(
                seen[:, COCO_17.index(joint)], sequence.keypoints_px[:, H36M_17.index(joint)], atol=1e-3
            )


def test_what_cannot_be_mixed_is_refused(tmp_path: Path) -> None:
    motion = ProceduralMotion(num_sequences={"train": 1, "val": 1}, num_frames=10, fps=30.0, seed=0)
    with pytest.raises(ValueError, match="same names, but b is in one only"):
        MixedData(sets={"a": motion}, weights={"a": 1.0, "b": 1.0})
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"^data\.weights\.a must be a number of at least 0, not"):
            MixedData(sets={"a": motion, "b": motion}, weights={"a": weight, "b": 1.0})
    with pytest.raises(
        ValueError, match=r"None of the data sets has both a root and a weight .* one of a, b"
    ):
        MixedData(sets={"a": motion, "b": replace(FOLDER, root=None)}, weights={"a": 0.0, "b": 1.0})
    with pytest.raises(ValueError, match="none of the data sets is motion"):
        MixedData(sets={"a": FOLDER}, weights={"a": 1.0}).read("val")
    assert len(MixedData(sets={"a": motion, "b": FOLDER}, weights={"a": 0.0, "b": 1.0}).read("val")) == 1
    with pytest.raises(ValueError, match="neither a body nor 3D joints; 2D keypoints alone teach nothing"):
        _library([mesh_sequence(**NO_BODY)])
    with pytest.raises(ValueError, match="No sequence of set has 21 evaluated frames in a row"):
        _library([mesh_sequence()], max_clip_frames=21)
    joints = _library([mesh_sequence(joints_cam_m=np.ones((20, 17, 3)), **NO_BODY)])
    with pytest.raises(ValueError, match="None of a has bodies"):
        Mixture({"a": joints}, {"a": 1.0}, fps=30.0).mean_body_rotmat()
    with pytest.raises(ValueError, match="no prepared mesh sequence"):
        MeshRecoveryTask(_config(f"data.sets.three_dpw.root={tmp_path}"))


def test_one_frame_rate_is_trained_and_validated_on(tmp_path: Path) -> None:
    write_mesh_set(tmp_path / "set", "train", mesh_sequence(fps=50.0))
    recorded = f"data.sets.three_dpw.root={tmp_path / 'set'}"
    one = ("data.sets.three_dpw.fps=25.0", "data.sets.procedural.fps=25.0")
    assert MeshRecoveryTask(_config(recorded, *one)).clip_format()["fps"] == 25.0
    for weight in (1.0, 0.0):  # without one, motion is validated on all the same
        with pytest.raises(
            ValueError, match=r"set data\.sets\.three_dpw\.fps=25, data\.sets\.procedural\.fps=30 alike"
        ):
            MeshRecoveryTask(_config(recorded, one[0], f"data.weights.procedural={weight}"))
    with pytest.raises(ValueError, match=r"^data\.sets\.three_dpw\.fps must be a number above 0, not 0"):
        MeshRecoveryTask(_config(recorded, "data.sets.three_dpw.fps=0.0"))
    MeshRecoveryTask(_config("data.sets.three_dpw.fps=25.0"))  # is not there
