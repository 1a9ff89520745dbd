"""How noisy a track is: known noise is measured as what it is, and the severity it was made with is found again."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_fixtures import run_tool
from keypoint_fixtures import KEYPOINTS
from PIL import Image
from rich.console import Console
from scipy.signal import savgol_coeffs
from test_detector_noise import QUIET, STANDING, K

from core.camera import project
from core.keypoints.detector_noise import DetectorNoise
from core.keypoints.files import write_keypoints_npz
from core.keypoints.noise_report import print_match
from core.keypoints.noise_statistics import (
    PARTS,
    Clips,
    jitter_statistics,
    match_noise,
    noise_figure,
    polynomial_residual,
    smoothed,
)
from core.keypoints.track import Track
from core.skeleton import H36M_17

NUM_FRAMES = 300


def _walk() -> torch.Tensor:
    """Somebody who crosses the picture and swings about, (T, 17, 3) metres before the camera."""
    time_s = torch.arange(NUM_FRAMES) / 30
    joints = STANDING.expand(NUM_FRAMES, 17, 3).clone()
    limbs = [i for i, name in enumerate(H36M_17.joint_names) if name.endswith(("wrist", "ankle"))]
    joints[:, limbs, 0] += 0.15 * torch.sin(3 * time_s)[:, None]
    shift = torch.stack([0.1 * time_s - 0.5, 0 * time_s, 0 * time_s + 5.0], dim=-1)
    return joints + shift[:, None]


def _exact_px(joints: torch.Tensor) -> np.ndarray:
    return project(joints[None], K)[0].double().numpy()


def _track(keypoints_px: np.ndarray, confidence: np.ndarray) -> Track:
    return Track(
        person_id="7",
        skeleton=H36M_17,
        frame_ids=np.arange(len(keypoints_px)),
        keypoints_px=keypoints_px.astype(np.float32),
        confidence=confidence.astype(np.float32),
        fps=30.0,
        image_size=(1080, 1920),
    )


def test_white_noise_is_measured_as_what_it_is() -> None:
    rng = np.random.default_rng(0)
    clips = Clips(100 + rng.normal(scale=2.0, size=(4, 500, 17, 2)), np.full((4, 500, 17), 0.8))
    found = jitter_statistics(clips, np.ones((4, 500, 17), bool), torso_px=80.0)
    kept = -savgol_coeffs(13, 3)  # what the filter makes of one value, and so of neighbouring ones
    kept[6] += 1
    lag_1 = (kept[1:] @ kept[:-1]) / (kept @ kept)
    for jitter in found.parts.values():
        assert jitter.fast_percent == pytest.approx(2.5, rel=0.05)
        assert jitter.slow_percent == pytest.approx(2.5, rel=0.05)
        assert jitter.slow_correlation == pytest.approx(lag_1, abs=0.05)
        # Of a Rayleigh distribution: sqrt(ln 20 / ln 2).
        assert jitter.tail == pytest.approx(math.sqrt(math.log(20) / math.log(2)), rel=0.05)
        assert (jitter.confidence_median, jitter.confidence_5_percent) == (0.8, 0.8)
    assert found.slow_by_confidence["0.7 to 0.8"] == pytest.approx(2.5, rel=0.05)
    assert math.isnan(found.slow_by_confidence["0.8 to 0.9"])


def test_polynomials_themselves_leave_nothing() -> None:
    frames = np.arange(40.0)[None, :, None, None] * np.ones((1, 1, 17, 2))
    inner = slice(6, -6)
    assert np.abs(polynomial_residual(3 * frames**2 - frames, 5, 2)[:, inner]).max() < 1e-8
    assert np.abs(polynomial_residual(frames**3 - 7 * frames, 13, 3)[:, inner]).max() < 1e-6
    assert (
        np.abs(polynomial_residual(frames**3, 5, 2)[:, inner]).max() < 1e-8
    )  # odd powers cancel in the middle
    assert np.abs(polynomial_residual(frames**4, 13, 3)[:, inner]).min() > 1
    np.testing.assert_allclose(smoothed(3 * frames[0])[10:-10], 3 * frames[0, 10:-10], atol=1e-9)
    spike = np.zeros((40, 17, 2))
    spike[20:23] = 50.0
    assert np.abs(smoothed(spike)).max() < 1e-9  # three frames are outvoted by four


def test_frames_in_which_a_joint_is_not_seen_do_not_count() -> None:
    rng = np.random.default_rng(0)
    keypoints = rng.normal(size=(1, 200, 17, 2))
    seen = np.ones((1, 200, 17), bool)
    wrist = H36M_17.index("left_wrist")
    seen[0, ::20, wrist] = False
    keypoints[0, ::20, wrist] = 1e6
    clips = Clips(keypoints, seen * 0.9)
    assert jitter_statistics(clips, seen, 100.0).parts["wrist"].fast_percent == pytest.approx(1, rel=0.15)
    for side in ("left", "right"):  # never 13 in a row
        seen[0, ::6, H36M_17.index(f"{side}_wrist")] = False
    found = jitter_statistics(clips, seen, 100.0).parts["wrist"]
    assert math.isnan(found.slow_percent)
    assert math.isnan(found.slow_correlation)
    assert found.fast_percent == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize("severity", [0.5, 1.0, 2.0])
def test_the_severity_that_a_track_was_made_with_is_found(severity: float) -> None:
    joints = _walk()
    noise = DetectorNoise()
    lossless = replace(
        noise,
        **{f"{loss}_rate": 0.0 for loss in ("joint_loss", "frame_loss", "absence", "crop", "threshold")},
        severity=(severity, severity),
    )
    exact = torch.from_numpy(_exact_px(joints)).float()
    detected = lossless(exact[None], joints[None], torch.Generator().manual_seed(99))
    track = _track(*(values[0].numpy() for values in detected))
    match = match_noise(track, joints, noise, num_seeds=4)
    assert match.severity == pytest.approx(severity, rel=0.2)
    assert np.mean(np.log(match.twin.fast_percent / match.track.fast_percent)) == pytest.approx(0, abs=0.02)
    axes = noise_figure(match).axes
    assert [len(axis.get_lines()[0].get_ydata()) for axis in axes] == [150] * 4
    assert axes[0].get_ylim() == axes[2].get_ylim()


def test_a_faster_track_is_measured_at_the_rate_of_the_noise() -> None:
    """Between the frames of a track of 60 a second lies half the motion, and none of the detector's noise."""
    joints = _walk()
    exact = _exact_px(joints)
    noisy = exact + np.random.default_rng(0).normal(scale=2.0, size=exact.shape)
    track = _track(noisy, np.full((NUM_FRAMES, 17), 0.9))
    at_30 = match_noise(track, joints, DetectorNoise(), num_seeds=1)
    assert at_30.fps == 30.0
    assert not at_30.is_too_slow
    between = noisy.repeat(2, axis=0)
    between[1::2] += 50  # seen, and left out
    twice = replace(_track(between, np.full((2 * NUM_FRAMES, 17), 0.9)), fps=59.94)
    at_60 = match_noise(twice, joints.repeat_interleave(2, dim=0), DetectorNoise(), num_seeds=1)
    assert (at_60.severity, at_60.fps) == (at_30.severity, 29.97)
    slow = match_noise(replace(track, fps=10.0), joints, DetectorNoise(), num_seeds=1)
    assert slow.is_too_slow
    console = Console(record=True, width=80)
    print_match(console, slow, trained_with=(0.4, 2.0))
    shown = console.export_text()
    assert "At 10 frames a second, people's own motion" in shown
    assert "…" not in shown


def test_what_cannot_be_measured_is_said() -> None:
    joints = _walk()
    exact = _exact_px(joints)
    seen = np.full((NUM_FRAMES, 17), 0.9)
    noisy = exact + np.random.default_rng(0).normal(size=exact.shape)
    often = (np.arange(NUM_FRAMES) % 9 > 0)[:, None]
    headless = seen.copy()
    headless[:, H36M_17.index("thorax")] = 0
    still = np.round(exact[:1]).repeat(60, axis=0)
    for track, noise, sentence in (
        (_track(still, seen[:60]), DetectorNoise(), "Person '7': the track does not jitter at all"),
        (_track(noisy[:12], seen[:12]), DetectorNoise(), "no limb is seen in 13 frames in a row"),
        (_track(noisy, often * seen), DetectorNoise(), "no limb is seen in 13 frames in a row"),
        (_track(noisy, headless), DetectorNoise(), "hips and shoulders"),
        (_track(noisy, seen), QUIET, "jitters more than the noise does at severity 10"),
        (_track(exact + 1e-3 * (noisy - exact), seen), DetectorNoise(), "jitters less than the noise"),
    ):
        with pytest.raises(ValueError, match=sentence):
            match_noise(track, joints[: track.num_frames], noise, num_seeds=1)
    with pytest.raises(ValueError, match="num_seeds"):
        match_noise(_track(noisy, seen), joints, DetectorNoise(), num_seeds=0)


@pytest.mark.slow
def test_the_command_measures_a_file(tmp_path: Path) -> None:
    joints = _walk()
    noisy = _exact_px(joints) + np.random.default_rng(0).normal(scale=1.5, size=(NUM_FRAMES, 17, 2))
    track = _track(noisy, np.full((NUM_FRAMES, 17), 0.9))
    write_keypoints_npz(tmp_path / "keypoints.npz", track)
    out = tmp_path / "out"
    arguments = [f"input={tmp_path / 'keypoints.npz'}", f"out={out}", "num_seeds=2"]
    finished = run_tool("measure_noise.py", *arguments)
    assert finished.returncode == 0, finished.stderr
    found = json.loads((out / "noise.json").read_text())
    assert found["person"] == "7"
    assert f"at severity {found['severity']:.2f}" in finished.stdout
    assert set(found["detected"]["parts"]) == set(found["twin"]["parts"]) == set(PARTS)
    torso_px = 0.5 * float(K[0, 0]) / 5.0
    assert found["detected"]["parts"]["wrist"]["fast_percent"] == pytest.approx(150 / torso_px, rel=0.1)
    with Image.open(out / "noise.png") as picture:
        assert min(picture.size) > 400
    for argument, sentence in (
        ("person=all", "person=all would mix people"),
        ("person=9", "no person '9'; it has 7"),
        ("num_seeds=0", "num_seeds must be"),
        ("noise=null", "nothing to compare with"),
        ("noise.severity=[2,1]", "noise.severity"),
    ):
        finished = run_tool("measure_noise.py", *arguments, argument)
        assert finished.returncode == 2, finished.stderr
        assert sentence in finished.stderr
        assert len(finished.stderr.strip().splitlines()) == 1, finished.stderr


@pytest.mark.slow
@pytest.mark.skipif(not KEYPOINTS.is_dir(), reason="the shared keypoint files are not here")
def test_real_detectors_lie_within_the_severities_of_training(tmp_path: Path) -> None:
    for name in ("alphapose_halpe26.json", "openpose_body25_a", "openpose_body25_b", "gastnet_coco17.json"):
        finished = run_tool("measure_noise.py", f"input={KEYPOINTS / name}", f"out={tmp_path}", "num_seeds=3")
        assert finished.returncode == 0, finished.stderr
        low, high = DetectorNoise().severity
        assert low < json.loads((tmp_path / "noise.json").read_text())["severity"] < high
