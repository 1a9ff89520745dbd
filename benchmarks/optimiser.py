"""A step of the optimiser alone: Muon for all matrices of a shape at once, against `torch.optim.Muon`'s one by one.

The matrices are those that training gives to Muon: between the hidden layers of the backbone of each size
(`configs/backbone/`), with their learning rate. Both begin with the same weights and gradients.
"""

from collections.abc import Callable

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from rich.progress import track
from torch import Tensor, nn

from benchmarks import CONFIGS
from benchmarks.timing import BenchRow, time_side_by_side
from core.backbone import Backbone
from core.muon import MuonWithAdamW

BACKBONES = ("ssr_stf_tiny", "ssr_stf_xs", "ssr_stf_b", "residual_mlp")
_LEARNING_RATE, _WEIGHT_DECAY = 1e-2, 1e-2


def run(threads: int) -> list[BenchRow]:
    """One row for each backbone."""
    rows = []
    for name in track(BACKBONES, "Optimisers", transient=True):
        ours, theirs = _copies(_matrices(name)), _copies(_matrices(name))
        step = MuonWithAdamW(
            [{"params": ours, "muon": True, "weight_decay": _WEIGHT_DECAY}],
            lr=_LEARNING_RATE,
            betas=(0.9, 0.99),
        ).step
        # adjust_lr_fn: a step as large as AdamW's, as ours.
        reference = torch.optim.Muon(
            theirs, lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"
        ).step
        difference = _largest_difference(ours, theirs, step, reference)
        ours_s, reference_s = time_side_by_side(step, reference, seconds=2, min_rounds=5)
        rows.append(
            BenchRow(
                case=f"{name}: {len(ours)} matrices, {sum(map(Tensor.numel, ours)) / 1e6:.2f} M numbers",
                ours_s=ours_s,
                reference="torch.optim.Muon",
                reference_s=reference_s,
                max_abs_diff=difference,
                sizes={"matrices": len(ours), "numbers": sum(map(Tensor.numel, ours))},
                dtype="float32",
                threads=threads,
            )
        )
    return rows


def _matrices(name: str) -> list[nn.Parameter]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose(overrides=[f"+backbone={name}"]).backbone
    torch.manual_seed(0)
    backbone: Backbone = instantiate(config)
    return backbone.muon_matrices()


def _copies(matrices: list[nn.Parameter]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    copies = [nn.Parameter(matrix.detach().clone()) for matrix in matrices]
    for copy in copies:
        copy.grad = torch.randn(copy.shape, generator=generator)
    return copies


def _largest_difference(
    ours: list[nn.Parameter], theirs: list[nn.Parameter], *steps: Callable[[], object]
) -> float:
    """Between the weights after one step of each."""
    for step in steps:
        step()
    return max((a - b).abs().max().item() for a, b in zip(ours, theirs, strict=True))
