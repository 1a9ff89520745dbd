"""What every backbone is to the heads and to the training around it."""

from collections.abc import Sequence

from torch import nn

from core.muon import matrices_of_linear_maps


class Backbone(nn.Module):
    """Clips of normalised 2D keypoints (B, T, J, 3) to pose features (B, T, tokens, C).

    Attributes:
        skeleton, in_channels: what its keypoints are: J joints, by a name in `core.skeleton.SKELETONS`, and the
            numbers of each.
        num_tokens: feature tokens per frame.
        dim_representation: channels of each.
        num_active_blocks: how many of its blocks run, from the first; None for all. A curriculum over depth
            sets it (`core.schedule.CurriculumPhase`).
    """

    def __init__(
        self, *, num_tokens: int, dim_representation: int, skeleton: str = "h36m_17", in_channels: int = 3
    ) -> None:
        super().__init__()
        self.dim_representation = dim_representation
        self.skeleton = skeleton
        self.in_channels = in_channels
        self.num_tokens = num_tokens
        self.num_active_blocks: int | None = None

    @property
    def learns_without_blocks(self) -> bool:
        """Whether there is enough of it to train with no block active."""
        return False

    @property
    def num_blocks(self) -> int:
        """How many blocks there are to activate."""
        return sum(1 for _ in self.get_submodule("blocks").children())

    def check_num_frames(self, lengths: Sequence[int]) -> None:
        """ValueError if it cannot take clips of one of these lengths."""

    def muon_matrices(self) -> list[nn.Parameter]:
        """What `core.muon` trains: weights of the linear maps between hidden layers, those inside `blocks`."""
        return matrices_of_linear_maps(self.get_submodule("blocks"))

    def trunk_parameters(self) -> list[nn.Parameter]:
        """What refines a model that is complete without it, and may learn at a rate of its own; or none."""
        return []


def check_backbone_fits(backbone: Backbone, head_num_tokens: int, head_dim_representation: int) -> None:
    """ValueError if it takes other keypoints than models see, which are (x, y, confidence) of H36M_17, or if the
    head takes other tokens than it gives, or with other channels."""
    if (backbone.skeleton, backbone.in_channels) != ("h36m_17", 3):
        raise ValueError(
            "Models see (x, y, confidence) of h36m_17, to which keypoints of other skeletons are converted, and "
            f"the backbone takes {backbone.in_channels} numbers for each joint of {backbone.skeleton}; leave "
            "backbone.skeleton and backbone.in_channels as they are."
        )
    if backbone.num_tokens != head_num_tokens:
        raise ValueError(
            f"The backbone gives {backbone.num_tokens} feature tokens per frame and the head takes "
            f"{head_num_tokens}; set head.num_tokens={backbone.num_tokens}."
        )
    if backbone.dim_representation != head_dim_representation:
        raise ValueError(
            f"The backbone gives features of {backbone.dim_representation} channels and the head takes "
            f"{head_dim_representation}; leave head.dim_representation out, which follows the backbone's."
        )


def check_active_blocks(backbone: Backbone, active_blocks: Sequence[int | None]) -> None:
    """Refuses a curriculum that runs more blocks than there are, none where nothing else could learn, or that ends
    with fewer than there are.

    Args:
        active_blocks: how many blocks run, by phase; None for all.

    Raises:
        ValueError: One sentence.
    """
    most = max((number or 0 for number in active_blocks), default=0)
    if most > backbone.num_blocks:
        raise ValueError(
            f"The curriculum has a phase with active_blocks={most}, and this backbone has "
            f"{backbone.num_blocks}; give no more than that (null is all of them)."
        )
    if 0 in active_blocks and not backbone.learns_without_blocks:
        raise ValueError(
            "The curriculum has a phase with active_blocks=0, and this backbone has no frame context that could "
            "learn then; give backbone.frame_context=mirror_mlp, or phases in which blocks run (null: all)."
        )
    last = active_blocks[-1] if active_blocks else None
    # All of them run in what is saved: a head that has learned on the features of fewer would meet others there, of
    # blocks that learned for another depth, or never.
    if last is not None and last < backbone.num_blocks:
        raise ValueError(
            f"The curriculum ends with active_blocks={last}, and all {backbone.num_blocks} blocks would be saved "
            f"and used; end it with active_blocks=null, or set backbone.num_blocks={last}."
        )
