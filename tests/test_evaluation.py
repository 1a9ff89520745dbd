from dataclasses import replace

import numpy as np
import pytest
import torch
from simulated_device import simulated_device
from torch import Tensor, nn

import mesh_head.evaluation
from body_models.open_body import load_open_body, load_open_body_regressor
from body_models.parameters import BodyParameters
from core.camera import VirtualCameraSampler
from core.keypoints.detector_noise import DetectorNoise
from core.motion.procedural import procedural_motion
from mesh_head.evaluation import MotionEvaluation, evaluate_motion
from mesh_head.motion_data import ClipSynthesizer, SyntheticClips
from mesh_head.protocols import MOTIONBERT, VIBE, WHAM
from mesh_head.smpl_head import FACING_CAMERA, ConstantPose
from mesh_head.supervision import SupervisedBody

CPU = torch.device("cpu")


class Recorder(nn.Module):
    """Remembers what it was shown; predicts the rest pose."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, keypoints: Tensor) -> BodyParameters:
        self.seen.append(keypoints)
        return ConstantPose(torch.tensor(FACING_CAMERA), torch.eye(3).repeat(23, 1, 1), 10)(keypoints)


class Oracle(nn.Module):
    """Predicts the truth of what the synthesizer made last."""

    def __init__(self, synthesizer: ClipSynthesizer) -> None:
        super().__init__()
        synthesizer.register_forward_hook(self.listen)

    def listen(self, synthesizer: nn.Module, inputs: tuple, clips: SyntheticClips) -> None:
        self.clips = clips

    def forward(self, keypoints: Tensor) -> BodyParameters:
        clip, target = self.clips.normalised()
        torch.testing.assert_close(keypoints, clip.keypoints)
        return target.parameters


@pytest.fixture(scope="module")
def sequences() -> list:
    return procedural_motion(num_sequences=2, num_frames=50, fps=30.0, seed=3)


def _synthesizer() -> ClipSynthesizer:
    body, regressor = load_open_body("neutral"), load_open_body_regressor("h36m_17")
    return ClipSynthesizer(
        body=SupervisedBody(body=body, regressor=regressor, num_vertices=1),
        cameras=VirtualCameraSampler(),
        noise=DetectorNoise(),
    )


def _evaluate(
    model: nn.Module,
    sequences: list,
    *,
    synthesizer: ClipSynthesizer | None = None,
    window_frames: int = 9,
    max_stretches: int | None = None,
    model_fps: float | None = None,
):
    body, regressor = load_open_body("neutral"), load_open_body_regressor("h36m_17")
    return evaluate_motion(
        model,
        sequences,
        evaluation=MotionEvaluation(stretch_frames=20, max_stretches=max_stretches, seed=1),
        synthesizer=synthesizer or _synthesizer(),
        body=body,
        regressor=regressor,
        protocols=[WHAM, MOTIONBERT, VIBE],
        window_frames=window_frames,
        device=CPU,
        model_fps=model_fps,
    )


def test_stretches_cover_every_frame_once(sequences: list) -> None:
    evaluation = MotionEvaluation(stretch_frames=20, max_stretches=None, seed=0)
    frames = [
        (index, frame)
        for index, start, stop in evaluation.stretches(sequences)
        for frame in range(start, stop)
    ]
    assert sorted(frames) == [(index, frame) for index in range(2) for frame in range(50)]
    assert max(stop - start for _, start, stop in evaluation.stretches(sequences)) <= 20
    fewer = MotionEvaluation(stretch_frames=20, max_stretches=3, seed=0).stretches(sequences)
    assert len(fewer) == 3
    assert {index for index, _, _ in fewer} == {0, 1}


def test_every_model_sees_the_same_keypoints(sequences: list) -> None:
    first, second = Recorder(), Recorder()
    for recorder in (first, second):
        _evaluate(recorder, sequences, max_stretches=2)
    assert all(torch.equal(a, b) for a, b in zip(first.seen, second.seen, strict=True))
    seeds = [MotionEvaluation(stretch_frames=20, max_stretches=2, seed=seed) for seed in (1, 2)]
    of_seeds = [[clips.K for _, clips in seed.clips(sequences, _synthesizer(), CPU)] for seed in seeds]
    assert not any(torch.equal(a, b) for a, b in zip(*of_seeds, strict=True))


def test_cameras_and_noise_are_drawn_on_the_cpu(sequences: list) -> None:
    """Another device's generator gives other numbers: there would be as many test sets as devices."""
    evaluation = MotionEvaluation(stretch_frames=20, max_stretches=2, seed=1)
    here = [clips.keypoints_px for _, clips in evaluation.clips(sequences, _synthesizer(), CPU)]
    generators: list[torch.device] = []
    seeded = mesh_head.evaluation.seeded_generator

    def recorded(*numbers: int, device: torch.device) -> torch.Generator:
        generators.append(device)
        return seeded(*numbers, device=device)

    with simulated_device() as device, pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh_head.evaluation, "seeded_generator", recorded)
        synthesizer = _synthesizer().to(device)
        found = list(evaluation.clips(sequences, synthesizer, device))
        assert next(synthesizer.buffers()).device == device  # the run's own stays where it is
        assert all(clips.keypoints_px.device == device for _, clips in found)
        there = [clips.keypoints_px.cpu() for _, clips in found]
    assert generators == [CPU] * 2
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_people_may_get_shapes_of_their_own(sequences: list) -> None:
    plain = MotionEvaluation(stretch_frames=10, max_stretches=None, seed=1)
    own = list(plain.clips(sequences, _synthesizer(), CPU))
    torch.testing.assert_close(
        own[0][1].parameters_cam.betas.flatten(), torch.from_numpy(sequences[0].betas).float()
    )
    for std in (0.5, 1.0):
        drawn = list(replace(plain, betas_std=std).clips(sequences, _synthesizer(), CPU))
        betas = torch.stack([clips.parameters_cam.betas.flatten() for _, clips in drawn])
        assert betas.shape == (10, 10)
        assert len(betas.unique(dim=0)) == 10
        assert betas.abs().max() <= 3 * std
        assert betas.std() == pytest.approx(std, rel=0.3)
        # Nothing else is drawn otherwise.
        assert torch.equal(drawn[3][1].K, own[3][1].K)
        assert torch.equal(drawn[3][1].parameters_cam.body_rotmat, own[3][1].parameters_cam.body_rotmat)
    with pytest.raises(ValueError, match=r"evaluation\.betas_std must be a number of at least 0"):
        replace(plain, betas_std=-1.0)


def test_a_model_sees_the_frame_rate_that_it_knows(sequences: list) -> None:
    """At twice the rate every other frame is enough; all of them are predicted and count."""
    as_they_are, matched = Recorder(), Recorder()
    every = _evaluate(as_they_are, sequences, window_frames=20, max_stretches=1)
    result = _evaluate(matched, sequences, window_frames=20, max_stretches=1, model_fps=15.0)
    num_frames = result.total["wham"].num_frames
    assert num_frames == every.total["wham"].num_frames > 10
    (shown,), (given,) = matched.seen, as_they_are.seen
    count = (num_frames + 1) // 2
    # The crop is of other frames, so positions differ a little; confidences are the same.
    torch.testing.assert_close(shown[0, :count, :, 2], given[0, :num_frames:2, :, 2])


def test_truth_is_without_error(sequences: list) -> None:
    synthesizer = _synthesizer()
    window = 16  # as many as the stretch has
    result = _evaluate(
        Oracle(synthesizer), sequences, synthesizer=synthesizer, window_frames=window, max_stretches=1
    )
    assert set(result.total) == {"wham", "motionbert", "vibe"}
    for errors in result.total.values():
        assert errors.num_frames == window
        assert errors.mpjpe_mm < 0.001
        assert errors.mpve_mm < 0.001


def test_totals_are_frame_weighted_means_of_sequences(sequences: list) -> None:
    result = _evaluate(Recorder(), sequences)
    assert set(result.per_sequence) == {sequence.name for sequence in sequences}
    for protocol in ("wham", "motionbert"):
        parts = [errors[protocol] for errors in result.per_sequence.values()]
        mean = np.average([part.mpve_mm for part in parts], weights=[part.num_frames for part in parts])
        assert result.total[protocol].mpve_mm == pytest.approx(mean)
        assert result.total[protocol].num_frames == 100
        assert result.total[protocol].mpve_mm > 50


def test_report_names_its_protocol(sequences: list) -> None:
    result = _evaluate(Recorder(), sequences, max_stretches=2)
    report = result.report(MOTIONBERT, result)
    assert report["protocol"] == "motionbert"
    assert report["total"] == report["baseline_mean_pose"]
    assert "regressed pelvis" in report["definition"]
