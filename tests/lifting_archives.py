"""A walking stick figure, cameras like Human3.6M's, and files in the layouts of the lifting data sets."""

import pickle
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

# H36M_17 indices of MPI_INF_17's joints, from data_formats: head top, neck, right arm, left arm, right leg, left
# leg, pelvis, spine, head.
H36M_FROM_MPI = [10, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6, 0, 7, 9]
H36M_32 = [0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27]
ACTIONS = ("Directions", "Walking 1", "Walking", "Eating", "Photo 1", "Sitting")
BLOCK_LISTED = "s_09_act_05_subact_02"


class Camera(NamedTuple):
    name: str
    K: np.ndarray
    R_cam_world: np.ndarray
    t_cam_world_m: np.ndarray
    distortion: np.ndarray  # k1, k2, k3, p1, p2
    image_size: tuple[int, int]

    def to_camera_m(self, world_m: np.ndarray) -> np.ndarray:
        return world_m @ self.R_cam_world.T + self.t_cam_world_m

    def project(self, world_m: np.ndarray, *, lens: bool) -> np.ndarray:
        """As VideoPose3D's project_to_2d: radial and tangential terms multiply the ray, p is also added × ρ²."""
        cam = self.to_camera_m(world_m)
        x, y = cam[..., 0] / cam[..., 2], cam[..., 1] / cam[..., 2]
        if lens:
            k1, k2, k3, p1, p2 = self.distortion
            r2 = x * x + y * y
            factor = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + p1 * x + p2 * y
            x, y = x * factor + p1 * r2, y * factor + p2 * r2
        return np.stack([self.K[0, 0] * x + self.K[0, 2], self.K[1, 1] * y + self.K[1, 2]], axis=-1)


def cameras() -> list[Camera]:
    """Four around the room, 5 m away and 1.5 m high, in the order of VideoPose3D."""
    rig = []
    for index, (name, height) in enumerate(
        [("54138969", 1002), ("55011271", 1000), ("58860488", 1000), ("60457274", 1002)]
    ):
        angle = np.deg2rad(40 + 90 * index + 3 * index)
        position = np.array([5 * np.cos(angle), 5 * np.sin(angle), 1.5 + 0.05 * index])
        forward = np.array([0.1 * index, 0.0, 0.9]) - position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0.0, 0.0, 1.0])
        right /= np.linalg.norm(right)
        R = np.stack([right, np.cross(forward, right), forward])
        K = np.array(
            [[1145.0 + index, 0, 512.5 - 2 * index], [0, 1143.8 + index, 515.4 - 4 * index], [0, 0, 1]]
        )
        rig.append(
            Camera(name, K, R, -R @ position, np.array([-0.2, 0.24, -0.003, -0.001, -0.0014]), (height, 1000))
        )
    return rig


def walking_m(num_frames: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """(T, 17, 3) in metres, z up: a walk on a wobbling circle, with knees and elbows that bend as they can."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_frames) / 25 + rng.uniform(0, 6)
    phase, heading = 2 * np.pi * time, 0.7 * time
    along = np.stack([np.cos(heading), np.sin(heading), 0 * time], -1)
    left = np.stack([-np.sin(heading), np.cos(heading), 0 * time], -1)
    up = np.broadcast_to([0.0, 0.0, 1.0], along.shape)
    radius = 1.2 + 0.2 * np.sin(0.3 * time)

    def swing(angle: np.ndarray) -> np.ndarray:
        """A unit vector down, turned forwards by the angle."""
        return np.sin(angle)[:, None] * along - np.cos(angle)[:, None] * up

    joints = np.zeros((num_frames, 17, 3))
    pelvis = radius[:, None] * -left + 0.93 * up + 0.03 * np.sin(2 * phase)[:, None] * up
    lean = 0.2 + 0.1 * np.sin(0.8 * time)
    spine_up = np.cos(lean)[:, None] * up + np.sin(lean)[:, None] * along
    joints[:, 0] = pelvis
    joints[:, 7] = pelvis + 0.24 * spine_up
    joints[:, 8] = joints[:, 7] + 0.25 * spine_up
    joints[:, 9] = joints[:, 8] + 0.09 * spine_up + 0.08 * along
    joints[:, 10] = joints[:, 8] + 0.2 * spine_up
    for side, hip, shoulder in ((1, 4, 11), (-1, 1, 14)):
        stride = 0.4 * np.sin(phase) * side
        knee = 0.35 + 0.3 * np.cos(phase * side)
        joints[:, hip] = pelvis + side * 0.13 * left
        joints[:, hip + 1] = joints[:, hip] + 0.45 * swing(stride + 0.2)
        joints[:, hip + 2] = joints[:, hip + 1] + 0.45 * swing(stride + 0.2 - knee)
        joints[:, shoulder] = joints[:, 8] + side * 0.15 * left - 0.03 * spine_up
        joints[:, shoulder + 1] = joints[:, shoulder] + 0.28 * swing(-stride)
        joints[:, shoulder + 2] = joints[:, shoulder + 1] + 0.25 * swing(-stride + 0.6)
    return joints * scale


def h36m_pickle(num_frames: int = 60) -> dict[str, Any]:
    """What MotionBERT's pickle holds: two training and two test takes (one of them block-listed), two cameras."""
    content: dict[str, Any] = {}
    takes = {
        "train": [("s_01_act_02_cam_0{}", "Directions"), ("s_05_act_03_cam_0{}", "Discussion")],
        "test": [(BLOCK_LISTED + "_ca_0{}", "Greeting"), ("s_11_act_02_subact_01_ca_0{}", "Directions")],
    }
    for split, names in takes.items():
        columns: dict[str, list[Any]] = {}
        for take, (source, action) in enumerate(names):
            world = walking_m(num_frames, seed=take)
            for index, camera in enumerate(cameras()[:2]):
                joints_mm = 1000 * camera.to_camera_m(world)
                pixels = camera.project(world, lens=False)
                px_per_mm = camera.K[0, 0] / joints_mm[:, 0, 2]
                depth = (joints_mm[..., 2] - joints_mm[:, :1, 2]) * px_per_mm[:, None]
                image = np.concatenate([pixels, depth[..., None]], axis=-1)
                noise = np.random.default_rng(7).normal(0, 2, pixels.shape)
                row = {
                    "joint_2d": pixels + noise,
                    "confidence": np.full((num_frames, 17, 1), 0.9),
                    "joint3d_image": image,
                    "camera_name": [camera.name] * num_frames,
                    "source": [source.format(index + 1)] * num_frames,
                    "action": [action] * num_frames,
                }
                if split == "test":
                    row["2.5d_factor"] = 1 / px_per_mm
                    row["joints_2.5d_image"] = image / px_per_mm[:, None, None]
                for key, value in row.items():
                    columns.setdefault(key, []).append(value)
        content[split] = {
            key: list(chain(*pieces))
            if isinstance(pieces[0], list)
            else np.concatenate(pieces).astype(np.float32)
            for key, pieces in columns.items()
        }
    return content


def write_h36m(folder: Path, content: Any) -> Path:
    """As MotionBERT does: Python 3, protocol 4."""
    path = folder / "h36m_sh_conf_cam_source_final.pkl"
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


class VideoPose3D(NamedTuple):
    """The tables of data_3d_h36m.npz, data_2d_h36m_gt.npz and of a noisy detector's file."""

    positions_3d: dict[str, dict[str, np.ndarray]]
    exact: dict[str, dict[str, list[np.ndarray]]]
    detected: dict[str, dict[str, list[np.ndarray]]]


def videopose3d(
    subjects: tuple[str, ...] = ("S1", "S9"), num_frames: int = 150, num_takes: int = 2
) -> VideoPose3D:
    tables = VideoPose3D({}, {}, {})
    for number, subject in enumerate(subjects):
        for table in tables:
            table[subject] = {}
        for take, action in enumerate(ACTIONS[:num_takes]):
            world = walking_m(num_frames, seed=10 * number + take)
            full = np.repeat(world[:, :1], 32, axis=1)
            full[:, H36M_32] = world
            tables.positions_3d[subject][action] = full.astype(np.float32)
            # The videos run a little longer than the mocap.
            longer = np.concatenate([world, world[-1:]])
            exact = [camera.project(longer, lens=True).astype(np.float32) for camera in cameras()]
            noise = np.random.default_rng(number).normal(0, 4, exact[0].shape)
            tables.exact[subject][action] = exact
            tables.detected[subject][action] = [(view + noise).astype(np.float32) for view in exact]
    return tables


def write_videopose3d(folder: Path, tables: VideoPose3D, *, with_detected: bool = True) -> None:
    metadata = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": [[4, 5, 6], [1, 2, 3]]}
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=np.array(tables.positions_3d))
    np.savez_compressed(
        folder / "data_2d_h36m_gt.npz", positions_2d=np.array(tables.exact), metadata=np.array(metadata)
    )
    if with_detected:
        np.savez_compressed(
            folder / "data_2d_h36m_cpn_ft_h36m_dbb.npz",
            positions_2d=np.array(tables.detected),
            metadata=np.array(metadata),
        )


def mpi_inf_3dhp(num_frames: int = 60) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tables of P-STMO's two files: one sequence with two cameras, and two test sequences."""

    def view(seed: int, camera: Camera) -> dict[str, np.ndarray]:
        world = walking_m(num_frames, seed)[:, H36M_FROM_MPI]
        return {"data_2d": camera.project(world, lens=False), "data_3d": 1000 * camera.to_camera_m(world)}

    rig = cameras()
    train = {"S1 Seq1": [{"0": view(1, rig[0]), "4": view(1, rig[1])}, 25]}
    test = {}
    for seed, name in enumerate(("TS1", "TS5")):
        valid = np.zeros(num_frames)
        valid[: 40 + seed] = 1
        test[name] = {**view(seed, rig[seed]), "valid": valid}
    return train, test


def write_3dhp(folder: Path, train: Any, test: Any) -> None:
    np.savez_compressed(folder / "data_train_3dhp.npz", data=np.array(train))
    np.savez_compressed(folder / "data_test_3dhp.npz", data=np.array(test))
