"""The plain baseline of lifting and mesh recovery: a residual MLP on the flattened clip.

In the spirit of Martinez et al., "A Simple Yet Effective Baseline for 3D Human Pose Estimation", ICCV 2017,
on several frames at once. Every accuracy table of this project has a row of it.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from core.backbone import Backbone
from core.linear import Linear
from core.settings import require_number
from core.ssr_stf.frame_context import ResidualMlpBlock


class ResidualMlp(Backbone):
    """Clips of exactly `num_frames` frames to one feature token per frame.

    Args:
        num_joints: keypoints per frame, J.
        in_channels: numbers per keypoint.
        num_frames: T; unlike the other backbones this one cannot take another.
        dim_hidden: width of the residual trunk.
        num_blocks: residual blocks.
        dim_representation: channels of a frame's features.
    """

    def __init__(
        self,
        *,
        num_joints: int,
        in_channels: int,
        num_frames: int,
        dim_hidden: int,
        num_blocks: int,
        dim_representation: int,
    ) -> None:
        super().__init__(num_tokens=1, dim_representation=dim_representation, in_channels=in_channels)
        sizes = {"num_joints": num_joints, "in_channels": in_channels, "num_frames": num_frames}
        sizes |= {"dim_hidden": dim_hidden, "dim_representation": dim_representation}
        for key, size in sizes.items():
            require_number(f"backbone.{key}", size, least=1, whole=True)
        require_number("backbone.num_blocks", num_blocks, least=0, whole=True)
        require_number("backbone.num_joints", num_joints, least=17, most=17, whole=True)  # of H36M_17
        self.num_frames = num_frames
        self.embed = Linear(num_frames * num_joints * in_channels, dim_hidden)
        self.blocks = nn.Sequential(*(ResidualMlpBlock(dim_hidden) for _ in range(num_blocks)))
        self.norm = nn.LayerNorm(dim_hidden)
        self.representation = Linear(dim_hidden, num_frames * dim_representation)

    def check_num_frames(self, lengths: Sequence[int]) -> None:
        different = sorted(set(lengths))
        if len(different) > 1:
            raise ValueError(
                "The residual MLP takes clips of one length, and those of the curriculum have "
                f"{', '.join(map(str, different))} frames; give the curriculum clips of {self.num_frames} frames "
                "only, as backbone.num_frames says (experiment=mlp, experiment=pose_mlp)."
            )
        if different != [self.num_frames]:
            raise ValueError(
                f"The residual MLP was built for clips of {self.num_frames} frames, not {different[0]}; set "
                f"backbone.num_frames={different[0]}."
            )

    def forward(
        self, keypoints: Float[Tensor, "clip frame joint channel"]
    ) -> Float[Tensor, "clip frame 1 dim_representation"]:
        """Features (B, T, 1, C).

        Raises:
            ValueError: another number of frames than the one the MLP was built for.
        """
        self.check_num_frames([keypoints.shape[1]])
        hidden = self.norm(self.blocks[: self.num_active_blocks](self.embed(keypoints.flatten(1))))
        return self.representation(hidden).unflatten(-1, (self.num_frames, 1, -1))
