"""Muon and AdamW in one optimiser: against torch's own of each, and what it does to a state and a shape."""

import copy

import pytest
import torch
from torch import nn

from core import muon
from core.muon import MuonWithAdamW, matrices_of_linear_maps, orthogonalise
from core.residual_mlp import ResidualMlp


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 32), nn.Linear(32, 48), nn.Linear(48, 32), nn.Linear(32, 48), nn.Linear(48, 2)
    )


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    for_muon = {id(model.get_parameter(f"{layer}.weight")) for layer in (1, 2, 3)}
    return [
        {
            "params": [p for p in model.parameters() if id(p) in for_muon],
            "muon": True,
            "weight_decay": weight_decay,
        },
        {"params": [p for p in model.parameters() if id(p) not in for_muon], "weight_decay": weight_decay},
    ]


def _step(model: nn.Module, optimisers: list[torch.optim.Optimizer], seed: int) -> None:
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(seed))
    model.zero_grad()
    (model(x) - x[:, :2].sin()).square().mean().backward()
    for optimiser in optimisers:
        optimiser.step()


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_takes_the_steps_of_torchs_own_optimisers(weight_decay: float) -> None:
    ours, theirs = _model(), _model()
    one = MuonWithAdamW(_groups(ours, weight_decay), lr=1e-2, betas=(0.9, 0.95))
    for_muon, adamw = (group["params"] for group in _groups(theirs, weight_decay))
    assert isinstance(for_muon, list)
    assert isinstance(adamw, list)
    assert len(for_muon) == 3
    two: list[torch.optim.Optimizer] = [
        torch.optim.Muon(for_muon, lr=1e-2, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(adamw, lr=1e-2, weight_decay=weight_decay, betas=(0.9, 0.95)),
    ]
    before = copy.deepcopy(ours)
    for seed in range(5):
        _step(ours, [one], seed)
        _step(theirs, two, seed)
    for (name, own), other, start in zip(
        ours.named_parameters(), theirs.parameters(), before.parameters(), strict=True
    ):
        moved = (other - start).norm()
        assert moved > 0.01, name
        # Both round to bfloat16 on the way, at other places.
        assert (own - other).norm() < 0.05 * moved, name


@pytest.mark.parametrize("is_bfloat16", [False, True])
def test_orthogonalises_like_the_singular_value_decomposition(
    is_bfloat16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muon, "_multiplies_bfloat16", lambda device: is_bfloat16)
    torch.manual_seed(0)
    for shape in ((4, 16, 16), (3, 8, 40), (2, 40, 8)):
        matrices = torch.randn(*shape)
        u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
        result = orthogonalise(matrices)
        assert result.dtype == torch.float32
        assert result.shape == shape
        # U^T X V is diagonal, with what is left of the singular values on its diagonal.
        core = u.mT @ result @ vh.mT
        diagonal = core.diagonal(dim1=1, dim2=2)
        assert diagonal.min() > 0.3
        assert diagonal.max() < 1.4
        assert (core - torch.diag_embed(diagonal)).abs().max() < (0.05 if is_bfloat16 else 1e-4)


def test_a_gradient_of_zero_moves_nothing() -> None:
    assert orthogonalise(torch.zeros(2, 8, 8)).abs().max() == 0


def test_goes_on_from_a_saved_state() -> None:
    model = _model()
    optimiser = MuonWithAdamW(_groups(model, 0.1), lr=1e-2, betas=(0.9, 0.95))
    for seed in range(3):
        _step(model, [optimiser], seed)
    again = copy.deepcopy(model)
    resumed = MuonWithAdamW(_groups(again, 0.1), lr=1e-2, betas=(0.9, 0.95))
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for seed in range(3, 6):
        _step(model, [optimiser], seed)
        _step(again, [resumed], seed)
    for own, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(own, other)


def test_goes_on_from_a_checkpoint_on_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning leaves the number of steps on the CPU, and the fused AdamW wants all on one device."""
    weight = nn.Parameter(torch.zeros(3, device="meta"))
    weight.grad = torch.zeros(3, device="meta")
    optimiser = MuonWithAdamW([{"params": [weight]}], lr=1e-2, betas=(0.9, 0.95))
    moments = {"exp_avg": torch.zeros(3, device="meta"), "exp_avg_sq": torch.zeros(3, device="meta")}
    optimiser.load_state_dict(
        {**optimiser.state_dict(), "state": {0: {"step": torch.tensor(5.0), **moments}}}
    )
    assert optimiser.state[weight]["step"].device.type == "cpu"
    devices: list[str] = []
    monkeypatch.setattr(
        "core.muon.adamw",
        lambda *tensors, **_: devices.extend(x.device.type for some in tensors for x in some),
    )
    optimiser.step()
    assert devices == ["meta"] * 5


def test_parameters_without_gradient_stay() -> None:
    model = _model()
    optimiser = MuonWithAdamW(_groups(model, 0.1), lr=1e-2, betas=(0.9, 0.95))
    model.get_parameter("2.weight").requires_grad_(False)
    before = model.get_parameter("2.weight").clone()
    _step(model, [optimiser], 0)
    assert torch.equal(model.get_parameter("2.weight"), before)


def test_refuses_what_is_no_matrix() -> None:
    with pytest.raises(ValueError, match="matrices alone"):
        MuonWithAdamW(
            [{"params": [torch.zeros(3, requires_grad=True)], "muon": True}], lr=1.0, betas=(0.9, 0.9)
        )


def test_takes_matrices_between_hidden_layers() -> None:
    mlp = ResidualMlp(
        num_joints=17, in_channels=3, num_frames=3, dim_hidden=16, num_blocks=2, dim_representation=8
    )
    shapes = [tuple(weight.shape) for weight in mlp.muon_matrices()]
    assert shapes == [(16, 16)] * 4  # neither the first layer nor the last
    fusion = nn.Sequential(nn.Linear(64, 2), nn.Conv1d(8, 8, 1), nn.Linear(8, 8), nn.LayerNorm(8))
    assert [tuple(weight.shape) for weight in matrices_of_linear_maps(fusion)] == [(8, 8)]
