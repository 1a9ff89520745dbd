"""A mesh training run of seconds."""

from typing import Any

from command_fixtures import composed

SMALL = [
    "backbone.weights=null",
    "backbone.frame_context=mirror_mlp",
    "backbone.context_dim=128",
    "backbone.dim=32",
    "schedule.max_seconds=null",
    "schedule.max_steps=6",
    "schedule.validation_interval=3",
    "data.num_sequences={train:2,val:1}",
    "data.num_frames=60",
    "curriculum=[{until:0.5,num_frames:9,batch_size:4,active_blocks:0},{until:1.0,num_frames:9,batch_size:2,active_blocks:null}]",
    "evaluation.max_stretches=1",
]


def small_config(*overrides: str) -> dict[str, Any]:
    return composed("train_mesh", *SMALL, *overrides)
