"""Linear networks in folders like the predecessors' repositories."""

from pathlib import Path

# Linear networks under the predecessors' names, which import each other as theirs do.
FAKES = {
    "motionagformer": {
        "model/MotionAGFormer.py": """
from timm.models.layers import DropPath
from model.modules.attention import Attention

from torch import nn

class MotionAGFormer(nn.Module):
    def __init__(self, n_layers, dim_in, dim_feat, dim_rep, num_heads, neighbour_num, n_frames):
        super().__init__()
        self.embed = nn.Linear(dim_in, dim_feat)
        self.layers = nn.Sequential(*(Attention(dim_feat, num_heads) for _ in range(n_layers)))
        self.rep = nn.Linear(dim_feat, dim_rep)
        self.drop = DropPath(0.5)
        self.head = nn.Linear(dim_rep, 3)

    def forward(self, x):
        return self.head(self.drop(self.rep(self.layers(self.embed(x)))))
""",
        "model/modules/attention.py": """
from torch import nn

class Attention(nn.Module):
    def __init__(self, dim, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)

    def qkv_of(self, x):  # (3, B, H, T, J, D)
        return self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 4, 1, 2, 5)

    def forward(self, x):
        spatial = self.forward_spatial(*self.qkv_of(x))
        return spatial + self.forward_temporal(*self.qkv_of(x))

    def forward_spatial(self, q, k, v):
        attn = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return (attn @ v).permute(0, 2, 3, 1, 4).flatten(3)

    def forward_temporal(self, q, k, v):
        q, k, v = (x.transpose(2, 3) for x in (q, k, v))
        attn = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return (attn @ v).permute(0, 3, 2, 1, 4).flatten(3)
""",
    },
    "stcformer": {
        "model/stcformer.py": """
import torch
from torch import nn

class Model(nn.Module):
    def __init__(self, args):
        super().__init__()
        self.pose_emb = nn.Linear(2, args.d_hid, bias=False)
        self.parts = nn.Embedding(5, args.d_hid)
        self.part = torch.zeros(args.n_joints).long().cuda()
        self.stcformer = nn.Module()
        self.stcformer.stc_block = nn.ModuleList(
            nn.Sequential(nn.Linear(args.d_hid, args.d_hid), nn.Dropout(0.1)) for _ in range(args.layers)
        )
        self.regress_head = nn.Linear(args.d_hid, 3, bias=False)

    def forward(self, x):
        x = self.pose_emb(x) + self.parts(self.part)
        for block in self.stcformer.stc_block:
            x = block(x)
        return self.regress_head(x)
"""
    },
    "motionbert": {"lib/model/DSTformer.py": "import package_that_nobody_has\n"},
}


def write_fake_predecessors(root: Path) -> dict[str, str]:
    """A folder of each, by its name."""
    for name, files in FAKES.items():
        for path, text in files.items():
            (root / name / path).parent.mkdir(parents=True, exist_ok=True)
            (root / name / path).write_text(text)
    return {name: str(root / name) for name in FAKES}
