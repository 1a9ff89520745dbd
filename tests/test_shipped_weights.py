"""The weights that come with the project: there, small, and better than nothing on motion made from a seed."""

import torch

from body_models.open_body import load_open_body, load_open_body_regressor
from core.camera import VirtualCameraSampler
from core.keypoints.detector_noise import DetectorNoise
from core.motion.procedural import procedural_motion
from mesh_head.evaluation import MotionEvaluation, evaluate_motion
from mesh_head.motion_data import ClipSynthesizer
from mesh_head.protocols import WHAM
from mesh_head.supervision import SupervisedBody
from mesh_head.weights import SHIPPED, find_weights, load_mesh_model


def test_what_is_shipped_is_small_and_described() -> None:
    files = {find_weights(name) for name in SHIPPED}
    (folder,) = {path.parent for path in files}
    assert {path for path in folder.iterdir() if path.suffix == ".safetensors"} == files
    assert sum(path.stat().st_size for path in files) < 10_000_000
    described = (folder / "README.md").read_text(encoding="utf-8")
    assert all(f"# {path.name}\n" in described for path in files)


def test_shipped_weights_halve_the_error_of_the_mean_pose() -> None:
    path = find_weights("shipped")
    model, clip = load_mesh_model(path)
    body, regressor = load_open_body("neutral"), load_open_body_regressor("h36m_17")
    synthesizer = ClipSynthesizer(
        body=SupervisedBody(body=body, regressor=regressor, num_vertices=1),
        cameras=VirtualCameraSampler(),
        noise=DetectorNoise(),
    )
    sequences = procedural_motion(num_sequences=6, num_frames=81, fps=clip["fps"], seed=77)
    mpve_mm = [
        evaluate_motion(
            evaluated,
            sequences,
            evaluation=MotionEvaluation(stretch_frames=81, max_stretches=None, seed=5),
            synthesizer=synthesizer,
            body=body,
            regressor=regressor,
            protocols=[WHAM],
            window_frames=int(clip["num_frames"]),
            device=torch.device("cpu"),
        )
        .total["wham"]
        .mpve_mm
        for evaluated in (model, model.head.mean_pose_model())
    ]
    assert mpve_mm[0] < 0.5 * mpve_mm[1]
