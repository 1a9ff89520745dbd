"""What every backbone is to the heads and to the training around it."""

from torch import nn


class Backbone(nn.Module):
    """Clips of normalised 2D keypoints (B, T, J, 3) to pose features (B, T, tokens, C).

    Attributes:
        num_tokens: feature tokens per frame.
        num_active_blocks: how many of its blocks run, from the first; None for all. A curriculum over depth
            sets it (`core.schedule.CurriculumPhase`); what cannot hold its blocks back ignores it.
    """

    def __init__(self, *, num_tokens: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.num_active_blocks: int | None = None

    def trunk_parameters(self) -> list[nn.Parameter]:
        """What refines a model that is complete without it, and may learn at a rate of its own; or none."""
        return []


def check_tokens_fit(backbone: Backbone, head_num_tokens: int) -> None:
    """ValueError if a head takes another number of tokens than the backbone gives."""
    if backbone.num_tokens != head_num_tokens:
        raise ValueError(
            f"The backbone gives {backbone.num_tokens} feature tokens per frame and the head takes "
            f"{head_num_tokens}; set head.num_tokens={backbone.num_tokens}."
        )
