"""A small prepared lifting data set, and the overrides that make a lifting run small."""

from pathlib import Path

import numpy as np

from core.datasets.array_store import finish_store, write_part

SMALL_RUN = [
    "backbone.dim=16",
    "backbone.frame_context=mirror_mlp",
    "backbone.context_dim=64",
    "schedule.max_seconds=null",
    "schedule.max_steps=4",
    "schedule.validation_interval=2",
    "curriculum=[{until:0.5,num_frames:9,batch_size:4,active_blocks:0},{until:1.0,num_frames:27,batch_size:2,active_blocks:null}]",
    "validation.max_sequences=1",
]
SMALL_MOTION = ["data.num_sequences={train:2,val:2,test:2}", "data.num_frames=60"]


def write_lifting_store(
    root: Path, dataset: str = "h36m", num_frames: tuple[int, ...] = (60, 47), image_width: int = 1000
) -> None:
    """Smoothly moving joints seen by an orthographic camera, in the layout of tools/prepare_data.py."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        entries, joints, start = [], [], 0
        for index, count in enumerate(num_frames):
            walk = np.cumsum(rng.normal(scale=2.0, size=(count, 17, 3)), axis=0)
            joints.append(rng.normal(scale=200.0, size=(17, 3)) + walk)
            entries.append(
                {
                    "name": f"s_09_act_02_subact_0{index + 1}_ca_01",
                    "subject": "S9",
                    "action": "Walking",
                    "camera": "54138969",
                    "start": start,
                    "stop": start + count,
                    "joint_space": "image_25d" if dataset == "h36m" else "camera_mm",
                    "image_size": [1002, image_width],
                    "K": None,
                    "fps": 50.0,
                }
            )
            start += count
        joints_mm = np.concatenate(joints)
        mm_per_px = np.full(start, 4.0)
        arrays = {
            "keypoints_px": joints_mm[..., :2] / 4 + 500,
            "confidence": np.ones((start, 17)),
            "joints": np.add(joints_mm / 4, [500, 500, 0])
            if dataset == "h36m"
            else np.add(joints_mm, [0, 0, 4000]),
            "valid": np.ones(start, np.bool_),
        }
        if dataset == "h36m" and split == "test":
            arrays |= {"mm_per_px": mm_per_px, "joints_25d_mm": joints_mm}
        write_part(root / split / "all", arrays, entries, [])
    finish_store(root, dataset, {"train": ["all"], "test": ["all"]}, [])
