"""Predecessors' backbones from their own folders, what they cost beside ours, and our attention in them."""

import importlib
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from core.linear import ONEDNN_MIN_MULTIPLY_ADDS, Linear, ResidualLinear


def _backbone(
    peers: ModuleType, folders: dict[str, str], name: str, dim: int = 16, depth: int = 1
) -> nn.Module:
    backbone: nn.Module = peers.PeerBackbone(
        peer=name, repository=folders[name], depth=depth, dim=dim, in_channels=3, num_frames=9, options={}
    )
    return backbone


def test_predecessors_do_not_see_each_other(
    peers: ModuleType, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model", ModuleType("model"))
    before, path = dict(sys.modules), list(sys.path)
    keypoints = torch.randn(2, 9, 17, 3)
    assert _backbone(peers, folders, "motionagformer")(keypoints).shape == (2, 9, 17, 512)
    backbone = _backbone(peers, folders, "stcformer", dim=24)
    assert backbone(keypoints).shape == (2, 9, 17, 24)
    assert backbone.network.part.device.type == "cpu"
    backbone.to("meta")
    assert backbone.network.part.device.type == "meta"
    assert not any("part" in name.split(".") for name in backbone.state_dict())
    assert sys.path == path
    assert sys.modules["model"] is before["model"]
    assert not {"model.stcformer", "model.modules", "lib", "timm"} & (sys.modules.keys() - before.keys())


def test_predecessors_grow_like_ours(peers: ModuleType, folders: dict[str, str]) -> None:
    backbone = _backbone(peers, folders, "stcformer", depth=3)
    keypoints = torch.randn(2, 9, 17, 3)
    of_all = backbone(keypoints)
    blocks = backbone.network.stcformer.stc_block
    for num_active in (3, 2, 0):
        backbone.num_active_blocks = num_active
        expected = backbone.network.pose_emb(keypoints) + backbone.network.parts(backbone.network.part)
        for block in blocks[:num_active]:
            expected = block.block(expected)
        torch.testing.assert_close(backbone(keypoints), expected)
    backbone.num_active_blocks = None
    torch.testing.assert_close(backbone(keypoints), of_all)


def test_unknown_options_of_a_predecessor(peers: ModuleType, folders: dict[str, str]) -> None:
    sizes = {"depth": 1, "dim": 8, "in_channels": 3, "num_frames": 9}
    for name in ("motionagformer", "stcformer"):
        with pytest.raises(ValueError, match=r"cannot be built with the options \{'layer_scale': 1\}"):
            peers.PeerBackbone(peer=name, repository=folders[name], **sizes, options={"layer_scale": 1})


def test_what_is_missing_is_said(peers: ModuleType, folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"does not hold MotionAGFormer .* git clone https://github.com/Taati"
    ):
        peers.load_peer("motionagformer", tmp_path)
    with pytest.raises(ValueError, match=r"needs the package package_that_nobody_has.* pip install"):
        peers.load_peer("motionbert", folders["motionbert"])


@pytest.mark.parametrize("num_frames", [9, 81])
def test_our_attention_gives_the_predecessor_the_same_numbers(
    peers: ModuleType, folders: dict[str, str], num_frames: int
) -> None:
    backbone = _backbone(peers, folders, "motionagformer").double().eval()
    keypoints = torch.randn(2, num_frames, 17, 3, dtype=torch.float64)
    before = backbone(keypoints)
    peers.use_our_attention(backbone)
    torch.testing.assert_close(backbone(keypoints), before, rtol=0, atol=1e-12)


def test_benchmark_of_peers(
    peers: ModuleType, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = importlib.import_module("benchmarks.peers")
    monkeypatch.setattr(benchmark, "SIZES", {"xs": (1, 64, 9, 1)})
    monkeypatch.setattr(
        benchmark, "time_side_by_side", lambda ours, other, **_: (ours() or 1.0, other() or 2.0)
    )
    rows = benchmark.run(1, motionagformer=folders["motionagformer"])
    assert [row.reference for row in rows[:4]] == ["MotionAGFormer"] * 2 + [
        "MotionAGFormer, our attention"
    ] * 2
    assert len(rows) == 10
    assert [row.max_abs_diff for row in rows[:8]] == [None] * 8  # of different designs
    assert rows[-1].max_abs_diff < 1e-5  # theirs and theirs with our attention
    taken: list[dict[str, object]] = []
    monkeypatch.setattr(benchmark, "time_side_by_side", lambda *_, **how: taken.append(how) or (1.0, 2.0))
    rows = benchmark.run(1, motionagformer=folders["motionagformer"], clock="cpu", rounds="7")
    assert all(how["clock_s"] is time.process_time and how["min_rounds"] == 7 for how in taken)
    assert all(row.case.endswith("processor time") for row in rows)
    for wrong in ({"clock": "gpu"}, {"rounds": "0"}, {"rounds": "many"}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}="):
            benchmark.run(1, motionagformer=folders["motionagformer"], **wrong)


def test_memory_and_multiply_adds_of_a_known_network(peers: ModuleType) -> None:
    costs = importlib.import_module("benchmarks.comparison.costs")
    model = nn.Linear(3, 4, bias=False)
    measured = costs.measure_costs(
        model, model, clips=(2, 5), reference_clips=(2, 5), seconds=0, device=torch.device("cpu")
    )
    assert measured.num_parameters == 12
    assert measured.multiply_adds == 5 * 17 * 12
    assert measured.forward_ratio > 0
    on_others = costs.measure_costs(
        model, model, clips=(2, 5), reference_clips=(1, 5), seconds=0, device=torch.device("cpu")
    )
    assert on_others.forward_ratio is on_others.forward_backward_ratio is None

    def three_at_most_two_alive() -> None:
        first = torch.ones(10, 10)
        second = first.view(100).add_(1) + 1  # neither a view nor an operator in place takes memory
        del first
        second.exp()

    assert costs._peak_memory(three_at_most_two_alive) == 2 * 100 * 4


def test_linear_maps_by_onednn_are_counted(peers: ModuleType) -> None:
    costs = importlib.import_module("benchmarks.comparison.costs")

    class Added(ResidualLinear):
        def forward(self, h: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(h.new_zeros(*h.shape[:-1], 512), h)

    num_frames = 1 + ONEDNN_MIN_MULTIPLY_ADDS // (17 * 3 * 512)
    for model in (
        Linear(3, 512, bias=False),
        Added(3, 512, layer_scale_init=1.0, dropout=0.0, drop_path=0.0),
    ):
        assert costs.count_executed_multiply_adds(model, num_frames) == num_frames * 17 * 3 * 512


def test_predecessors_train_by_the_same_rules(peers: ModuleType, folders: dict[str, str]) -> None:
    """Muon for the matrices of the blocks alone, and nothing is dropped."""
    backbone = _backbone(peers, folders, "stcformer", depth=2)
    blocks = [block.block for block in backbone.network.stcformer.stc_block]
    assert {id(weight) for weight in backbone.muon_matrices()} == {id(block[0].weight) for block in blocks}
    assert all(block[1].p == 0 for block in blocks)
