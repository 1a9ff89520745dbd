"""Small archives in the layouts of the mesh data sets, with people that a body model really poses."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pickle_fixtures import write_python2_pickle

from body_models.open_body import load_open_body, load_open_body_regressor
from body_models.parameters import BodyParameters
from core.camera import project
from core.datasets.mesh_sequences import MeshSequence, write_mesh_sequence
from core.datasets.resumable_jobs import JobLog, JobResult
from core.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from core.skeleton import COCO_17, COCO_18

K_3DPW = np.array([[1961.1, 0.0, 540.0], [0.0, 1969.2, 960.0], [0.0, 0.0, 1.0]])
GENDERS = {"m": "male", "f": "female"}


def people(num_frames: int, num_people: int, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Poses (T, 24, 3) with the root in the camera's frame, pelvis positions (T, 3) before it, betas (10,)."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for person in range(num_people):
        steps = 0.03 * torch.randn(num_frames, 24, 3, generator=generator, dtype=torch.float64)
        poses = 0.2 * torch.randn(24, 3, generator=generator, dtype=torch.float64) + steps.cumsum(dim=0)
        poses[:, 0] = torch.tensor([torch.pi, 0.0, 0.0]) + steps[:, 0].cumsum(dim=0)  # upright, y down
        start = torch.tensor([1.2 * person - 0.6, 0.1, 5.0], dtype=torch.float64)
        pelvis = start + 0.01 * torch.randn(num_frames, 3, generator=generator, dtype=torch.float64)
        betas = torch.randn(10, generator=generator, dtype=torch.float64)
        found.append({"poses": poses, "pelvis": pelvis, "betas": betas})
    return found


def three_dpw_content(
    sequence: str, *, num_images: int = 12, genders: tuple[str, ...] = ("m", "f"), seed: int = 0
) -> dict[str, Any]:
    """What a sequence file of 3DPW holds, a moving camera before people that its keypoints show exactly."""
    generator = torch.Generator().manual_seed(seed + 1)
    turns = 0.02 * torch.randn(num_images, 3, generator=generator, dtype=torch.float64)
    R = rotvec_to_rotmat(torch.tensor([0.3, -1.0, 0.2], dtype=torch.float64) + turns.cumsum(dim=0))
    t = torch.tensor([3.0, -8.0, 20.0]) + turns.cumsum(dim=0)
    T_cam_world = torch.eye(4, dtype=torch.float64).repeat(num_images, 1, 1)
    T_cam_world[:, :3, :3], T_cam_world[:, :3, 3] = R, t
    content: dict[str, Any] = {
        "sequence": sequence,
        "img_frame_ids": 2 * np.arange(num_images) + 1,
        "cam_poses": T_cam_world.numpy(),
        "cam_intrinsics": K_3DPW,
        "genders": list(genders),
        "texture_maps": [np.zeros((2, 2, 3), np.uint8) for _ in genders],
    }
    lists: dict[str, list[np.ndarray]] = {}
    coco = load_open_body_regressor("coco_17").double()
    for gender, person in zip(genders, people(num_images, len(genders), seed), strict=True):
        body = load_open_body(GENDERS[gender]).double()
        rest_pelvis = body.shape(person["betas"]).rest_joints_m[0]
        root_cam = rotvec_to_rotmat(person["poses"][:, 0])
        parameters_cam = BodyParameters.from_rotvec(
            person["poses"], person["betas"][None], person["pelvis"] - rest_pelvis
        )
        seen = project(coco(body(parameters_cam).vertices_m), torch.from_numpy(K_3DPW))
        by_name = {name: seen[:, index] for index, name in enumerate(COCO_17.joint_names)}
        by_name["neck"] = (by_name["left_shoulder"] + by_name["right_shoulder"]) / 2
        keypoints = torch.stack([by_name[name] for name in COCO_18.joint_names], dim=-1)  # (T, 2, 18)
        poses = person["poses"].clone()
        poses[:, 0] = rotmat_to_rotvec(R.mT @ root_cam)
        trans = (R.mT @ (person["pelvis"] - t)[..., None])[..., 0] - rest_pelvis
        entries = {
            "poses": poses.flatten(1).numpy(),
            "trans": trans.numpy(),
            # Image i is frame 2 i + 1 at 60 Hz; there is a frame before the first and one after the last.
            "poses_60Hz": poses.flatten(1).repeat_interleave(2, dim=0).numpy(),
            "trans_60Hz": trans.repeat_interleave(2, dim=0).numpy(),
            "betas": np.concatenate([person["betas"].numpy(), np.zeros(290)]),
            "betas_clothed": person["betas"].numpy(),
            "v_template_clothed": body.v_template.numpy(),
            "poses2d": np.concatenate([keypoints.numpy(), np.full((num_images, 1, 18), 0.75)], axis=1),
            "jointPositions": np.zeros((num_images, 72)),
            "campose_valid": np.ones(num_images, bool),
        }
        for key, value in entries.items():
            lists.setdefault(key, []).append(value)
    return content | lists


def write_three_dpw(root: Path, split: str, sequence: str, **changes: Any) -> dict[str, Any]:
    """Writes a sequence file in 3DPW's layout below `root` and returns what it holds."""
    content = three_dpw_content(sequence, **changes)
    write_python2_pickle(root / "sequenceFiles" / split / f"{sequence}.pkl", content)
    return content


def motionbert_mesh_content(
    num_frames: int, sources: tuple[str, ...], *, camera_name: str | None, seed: int = 0
) -> dict[str, np.ndarray]:
    """One split of MotionBERT's mesh_det_*.pkl, `num_frames` rows per source."""
    K = torch.tensor([[1145.0, 0.0, 512.5], [0.0, 1144.0, 515.5], [0.0, 0.0, 1.0]], dtype=torch.float64)
    body, regressor = load_open_body().double(), load_open_body_regressor("h36m_17").double()
    columns: dict[str, list[np.ndarray]] = {}
    for number, source in enumerate(sources):
        person = people(num_frames, 1, seed + number)[0]
        rest_pelvis = body.shape(person["betas"]).rest_joints_m[0]
        parameters = BodyParameters.from_rotvec(
            person["poses"], person["betas"][None], person["pelvis"] - rest_pelvis
        )
        joints = regressor(body(parameters).vertices_m)
        entries = {
            "joint_2d": project(joints, K).numpy(),
            "confidence": np.full((num_frames, 17, 1), 1.01),
            "joint_cam": 1000 * joints.numpy(),
            "smpl_pose": person["poses"].flatten(1).numpy(),
            "smpl_shape": np.tile(person["betas"].numpy(), (num_frames, 1)),
            "source": np.array([source] * num_frames),
        }
        if camera_name is None:
            entries["img_hw"] = np.tile([1920, 1080], (num_frames, 1))
        else:
            entries["camera_name"] = np.array([camera_name] * num_frames)
        for key, value in entries.items():
            columns.setdefault(key, []).append(value)
    return {key: np.concatenate(parts) for key, parts in columns.items()}


def write_mesh_set(root: Path, split: str, *sequences: MeshSequence) -> None:
    """Sequences of one set as a finished preparation leaves them."""
    log = JobLog(root, {"dataset": sequences[0].dataset})
    with log.unfinished():
        for sequence in sequences:
            output = f"{split}/{sequence.name}.npz"
            write_mesh_sequence(root / output, sequence)
            log.record(output, [], JobResult([output], {}))


def mesh_sequence(num_frames: int = 20, seed: int = 0, **changes: Any) -> MeshSequence:
    """A sequence with a body, a standing camera and perfect keypoints."""
    split = motionbert_mesh_content(num_frames, ("a",), camera_name=None, seed=seed)
    identity = np.tile(np.eye(3), (num_frames, 1, 1))
    values: dict[str, Any] = {
        "name": f"sequence_{seed}",
        "dataset": "synthetic",
        "gender": "neutral",
        "frame_ids": np.arange(num_frames),
        "fps": 30.0,
        "image_size": (1000, 1002),
        "K": np.array([[1145.0, 0.0, 512.5], [0.0, 1144.0, 515.5], [0.0, 0.0, 1.0]]),
        "keypoints_px": split["joint_2d"],
        "confidence": np.ones((num_frames, 17)),
        "poses_rotvec": split["smpl_pose"].reshape(-1, 24, 3),
        "translation_world_m": None,
        "R_cam_world": identity,
        "t_cam_world_m": np.zeros((num_frames, 3)),
        "betas": split["smpl_shape"][0],
        "joints_cam_m": None,
        "evaluated": np.ones(num_frames, bool),
    }
    return MeshSequence(**values | changes)
