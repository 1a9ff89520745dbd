"""The pictures that training leaves: input, prediction and truth side by side."""

from pathlib import Path

import torch
from command_fixtures import composed
from lifting_fixtures import SMALL_MOTION, SMALL_RUN
from picture_fixtures import body_sizes, cells, drawn, is_reference
from PIL import Image
from torch import Tensor, nn

from core.ssr_stf.lifting_training import LiftingTask
from mesh_head.lifting_files import write_lifting_preview
from mesh_head.preview import write_preview
from mesh_head.smpl_head import ConstantPose
from mesh_head.training import MeshRecoveryTask

SIZE = (300, 220)
SMALL_MESH = [
    *("backbone.weights=null", "backbone.frame_context=mirror_mlp", "backbone.context_dim=64"),
    *("backbone.dim=16", "data.num_sequences={train:1,val:1}", "data.num_frames=40"),
    "curriculum=[{until:1.0,num_frames:9,batch_size:2,active_blocks:null}]",
    *("evaluation.max_stretches=1", "schedule.max_seconds=null", "schedule.max_steps=1"),
]


class Flat(nn.Module):
    """Lifts every joint to where a person lies, across the picture."""

    def forward(self, keypoints: Tensor) -> Tensor:
        across = torch.linspace(-1, 1, 17).expand(*keypoints.shape[:2], 17)
        return torch.stack([across, torch.zeros_like(across), torch.zeros_like(across)], dim=-1)


def test_mesh_preview(tmp_path: Path) -> None:
    task = MeshRecoveryTask(composed("train_mesh", *SMALL_MESH, f"out={tmp_path}"))
    lying = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    task.model = ConstantPose(lying, torch.eye(3).repeat(23, 1, 1), 10)
    write_preview(tmp_path, task, renderer="torch")
    with Image.open(tmp_path / "preview.png") as picture:
        keypoints, *bodies = cells(picture, 1, 5, SIZE)[0]
    assert drawn(keypoints).any()
    assert is_reference(torch.stack(bodies)).tolist() == [False, False, True, True]
    lying_px, _, standing_px, _ = body_sizes(torch.stack(bodies))[:, 1].tolist()
    assert lying_px > 1.5 * standing_px


def test_lifting_preview(tmp_path: Path) -> None:
    task = LiftingTask(composed("train_pose", *SMALL_RUN, *SMALL_MOTION, f"out={tmp_path}"))
    task.model = Flat()
    write_lifting_preview(tmp_path, task)
    with Image.open(tmp_path / "preview.png") as picture:
        of_sheet = cells(picture, 2, 5, SIZE)
    assert drawn(of_sheet).any(-1).any(-1).all()
    heights = body_sizes(of_sheet)[..., 0]
    assert (heights[:, 1:3] < 15).all()
    assert (heights[:, 3:] > 30).all()
    assert not torch.equal(of_sheet[0, 3], of_sheet[1, 3])
