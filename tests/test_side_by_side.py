"""Models side by side: predecessors from their own folders, rows of overrides, costs, runs that are kept."""

import importlib
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from command_fixtures import ROOT, composed, run_tool
from lifting_fixtures import SMALL_MOTION
from torch import Tensor, nn

from core.linear import ONEDNN_MIN_MULTIPLY_ADDS, Linear, ResidualLinear
from core.weights import save_weights

TOOLS = ROOT / "tools"
SMALL = [
    "data=procedural",
    *SMALL_MOTION,
    *("backbone.dim=16", "backbone.context_dim=32", "backbone.dim_representation=16"),
    "full_clips={num_frames:9,batch_size:2}",
    *("schedule.max_seconds=null", "schedule.max_steps=2", "schedule.validation_interval=2"),
    *("validation.max_sequences=1", "cost_seconds=0", "seeds=[0,1]"),
]
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


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, str]:
    for name, files in FAKES.items():
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
    return {name: str(tmp_path / name) for name in FAKES}


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.comparison.peer_backbones")


@pytest.fixture
def harness(peers: ModuleType) -> ModuleType:
    return importlib.import_module("benchmarks.comparison.harness")


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


def test_errors_that_a_run_does_not_have_are_dashes(peers: ModuleType) -> None:
    report = importlib.import_module("benchmarks.comparison.report")
    assert report._spread([1.0, 3.0]) == "2.0 ± 1.4"
    for missing in (None, float("nan")):
        assert report._spread([1.0, missing]) == "–"


def test_predecessors_train_by_the_same_rules(peers: ModuleType, folders: dict[str, str]) -> None:
    """Muon for the matrices of the blocks alone, and nothing is dropped."""
    backbone = _backbone(peers, folders, "stcformer", depth=2)
    blocks = [block.block for block in backbone.network.stcformer.stc_block]
    assert {id(weight) for weight in backbone.muon_matrices()} == {id(block[0].weight) for block in blocks}
    assert all(block[1].p == 0 for block in blocks)


def test_clips_that_a_row_cannot_take_are_said(harness: ModuleType, folders: dict[str, str]) -> None:
    overrides = [*SMALL, "rows=predecessors", "only=[ours,residual_mlp]", "other_window_frames=[9,81]"]
    _, left_out, _ = harness._row_configs(harness._composed(overrides), overrides)
    assert left_out == [
        "residual_mlp cannot take clips of other_window_frames=[9, 81], so it is not evaluated there."
    ]


def test_rows_are_configured_and_matched(harness: ModuleType) -> None:
    wide_enough = "backbone.dim=64"  # to be matched closely
    overrides = [*SMALL, "rows=predecessors", wide_enough]
    configs, left_out, _ = harness._row_configs(composed("side_by_side", *overrides), overrides)
    assert list(configs) == [
        *("ours", "ours_full_clips", "ours_growing", "ours_context"),
        *("residual_mlp", "residual_mlp_equal_parameters", "residual_mlp_adamw", "residual_mlp_full_clips"),
    ]
    assert [sentence.split()[0] for sentence in left_out] == [
        *("motionagformer", "motionbert", "stcformer"),
        *("motionagformer_equal_compute", "motionbert_equal_compute", "stcformer_equal_compute"),
        *(
            "motionagformer_layer_scale_1",
            "motionagformer_short_clips",
            "motionagformer_growing",
            "motionbert_growing",
            "stcformer_growing",
        ),
    ]
    assert "git clone https://github.com/zhenhuat/STCFormer" in left_out[2]
    courses = {
        name: [
            (phase["num_frames"], phase["batch_size"], phase["active_blocks"]) for phase in row["curriculum"]
        ]
        for name, row in configs.items()
    }
    assert courses["ours"] == [(5, 24, None), (9, 18, None), (9, 2, None)]
    assert courses["ours_full_clips"] == [(9, 2, None)]
    assert courses["ours_growing"] == [(5, 24, 2), (9, 18, 2), (9, 12, None), (9, 2, None)]
    assert courses["ours_context"] == [(9, 48, 0), (9, 2, None)]
    assert courses["residual_mlp"] == courses["residual_mlp_adamw"] == [(9, 192, None)]
    assert courses["residual_mlp_equal_parameters"] == [(9, 192, None)]
    assert courses["residual_mlp_full_clips"] == [(9, 48, None)]
    assert configs["residual_mlp"]["backbone"]["num_frames"] == 9
    for name in (
        "ours",
        "ours_growing",
        "ours_context",
        "residual_mlp",
        "residual_mlp_equal_parameters",
        "residual_mlp_adamw",
        "residual_mlp_full_clips",
    ):
        assert harness._clips(configs[name]) == (2, 9), (
            f"the costs of {name} are not measured on the same clips"
        )
    by_adamw = [name for name, row in configs.items() if row["schedule"]["muon_learning_rate"] is None]
    assert by_adamw == ["residual_mlp_adamw"]
    ours, mlp = (
        harness.count_parameters(harness._model(configs[name]))
        for name in ("ours", "residual_mlp_equal_parameters")
    )
    assert mlp == pytest.approx(ours, rel=0.1)


@pytest.mark.parametrize("rows", ["ablation_blocks", "ablation_context"])
def test_every_ablation_changes_the_model(harness: ModuleType, rows: str) -> None:
    overrides = [*SMALL, f"rows={rows}"]
    configs, left_out, _ = harness._row_configs(composed("side_by_side", *overrides), overrides)
    assert not left_out
    described = [json.dumps(config["backbone"]) for config in configs.values()]
    assert len(set(described)) == len(described)
    for config in configs.values():
        assert harness._model(config)(torch.randn(1, 9, 17, 3)).shape == (1, 9, 17, 3)


def test_rows_begin_with_one_trained_context(harness: ModuleType, tmp_path: Path) -> None:
    with_context = [*SMALL, "backbone.frame_context=mirror_mlp"]
    config = composed("side_by_side", *with_context)
    trained = harness._model(config)
    weights = tmp_path / "model.safetensors"
    save_weights(weights, trained, backbone={}, head={}, clip={"num_frames": 9, "fps": 30.0})
    overrides = [*with_context, "rows=ablation_blocks", f"start_from={weights}"]
    configs, _, _ = harness._row_configs(composed("side_by_side", *overrides), overrides)
    first = next(iter(configs.values()))
    for name, row in configs.items():
        model = harness.ComparedTask(row | {"seed": 1, "out": str(tmp_path)}).model
        for key, value in model.state_dict().items():
            begun_anew = key.startswith(("backbone.blocks.", "backbone.frame_embedding"))
            assert begun_anew or torch.equal(value, trained.state_dict()[key]), f"{name}: {key}"
    blocks = harness.ComparedTask(first | {"seed": 1, "out": str(tmp_path)}).model.backbone.blocks
    assert not torch.equal(
        blocks[0].transformer[0].mlp_in.weight, trained.backbone.blocks[0].transformer[0].mlp_in.weight
    )
    other = first | {"backbone": first["backbone"] | {"context_dim": 48}, "seed": 1, "out": str(tmp_path)}
    with pytest.raises(ValueError, match=r"model\.safetensors do not fit .* backbone\.context"):
        harness.ComparedTask(other)


def test_wrong_rows_are_named(harness: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"There is no row 'theirs'; the rows are ours,"):
        harness._row_configs(composed("side_by_side", *SMALL, "only=[theirs]"), SMALL)
    with pytest.raises(ValueError, match=r"No row is left to train. motionbert is left out"):
        harness._row_configs(composed("side_by_side", *SMALL, "only=[motionbert]"), SMALL)
    for override, problem in (
        ("threads=0", "threads must be a whole number of at least 1"),
        ("threads=1.5", "threads must be a whole number"),
        ("seeds=[]", r"seeds=\[\] must be a list, each once"),
        ("seeds=[0,0]", r"seeds=\[0, 0\] must be a list, each once"),
        ("seeds=[-1]", "Each of seeds must be a whole number of at least 0"),
        ("only=ours", "only=ours must be a list"),
        ("only=[]", "only=.* must be a list"),
        ("other_window_frames=[0]", "Row ours: each of other_window_frames"),
        ("seeds=[2147483648]", "Each of seeds must be a whole number .* below"),
        ("+rows.x=abc", r"Row x is abc, but a row is a list of overrides"),
        ("+rows.x=['other_window_frames=9']", r"Row x: other_window_frames=9 must be a list"),
        ("+rows.x=['peer=motionagformer']", "Row x: a peer needs a name and a depth"),
        ("+rows.x=['match=parameters']", "Row x: match needs the keys"),
        (
            "+rows.x=['backbone.dim=18','backbone.num_heads=4']",
            "Row x: dim=18 is not a multiple of num_heads=4",
        ),
        ("curriculum=[]", r"Rows have curricula of their own"),
        (
            "+rows.x=['course=own',"
            "'curriculum=[{until: 1.0, num_frames: 9, batch_size: 2, active_blocks: 0}]']",
            r"Row x: .* no frame context that could learn then; give backbone\.frame_context=mirror_mlp",
        ),
        (
            "+rows.x=['course=own',"
            "'curriculum=[{until: 1.0, num_frames: 9, batch_size: 2, active_blocks: 9}]']",
            r"Row x: .* active_blocks=9, and this backbone has \d",
        ),
        ("clock=sun", "choose cpu or wall"),
        (
            "course=other",
            "course='other' is not a choice; choose one of full, short_first, growing, many_short, own",
        ),
        ("+rows.x=['peer={name: motionbert}']", "a peer needs a name and a depth"),
        ("+rows.x=['peer={name: motionbert, depth: 1, width: 8}']", "a peer has no width"),
        ("+rows.x=['peer={name: dstformer, depth: 1}']", "there is no predecessor 'dstformer'"),
        ("+rows.x=['match={quantity: parameters}']", "match needs the keys quantity, key, multiple_of"),
    ):
        overrides = [*SMALL, override]
        with pytest.raises(ValueError, match=problem):
            harness.compare(composed("side_by_side", *overrides), overrides)
    with pytest.raises(ValueError, match=r"Experiments hold for train_pose\.py alone"):
        harness.compare(composed("side_by_side", *SMALL), [*SMALL, "experiment=pose_mlp"])


def test_clips_that_a_predecessor_cannot_take_are_said_before_any_row_trains(
    harness: ModuleType, folders: dict[str, str]
) -> None:
    overrides = [*SMALL, f"peers.motionagformer={folders['motionagformer']}"]
    overrides += ["+rows.x=['peer={name: motionagformer, depth: 1}']", "only=[ours,x]"]
    with pytest.raises(
        ValueError, match=r"Row x: MotionAGFormer .* frames, does not take those of 5 .*course=full"
    ):
        harness.compare(composed("side_by_side", *overrides), overrides)


def test_damaged_results_are_named(harness: ModuleType, tmp_path: Path) -> None:
    for content in ("{", "[]"):
        (tmp_path / "result.json").write_text(content)
        with pytest.raises(ValueError, match=r"result\.json is (damaged|no result).*; delete it"):
            harness._read_result(tmp_path / "result.json")


def test_reports_of_the_same_conditions_are_joined(harness: ModuleType, tmp_path: Path) -> None:
    earlier = tmp_path / "side_by_side.json"
    now = {"rows": {"b": 2, "c": 3}, "conditions": {"seeds": (0, 1)}}
    assert harness.with_rows_of(earlier, now) == now
    for conditions, rows in (
        ({"seeds": [0, 1]}, {"a": 1, "b": 2, "c": 3}),
        ({"seeds": [0]}, {"b": 2, "c": 3}),
    ):
        earlier.write_text(json.dumps({"rows": {"a": 1, "b": 1}, "conditions": conditions}))
        assert harness.with_rows_of(earlier, now)["rows"] == rows
    earlier.write_text("{")
    assert harness.with_rows_of(earlier, now) == now


def test_time_for_averaging_counts_once(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [*SMALL, "schedule.weight_average_decay=0.9"]
    row = harness._run_config(harness._composed([*overrides, "~rows"]))
    task = harness.ComparedTask(row | {"seed": 0, "out": "unused"})
    now_s = [0.0]
    monkeypatch.setattr(harness.ComparedTask, "_clock_s", lambda self: now_s[0])
    monkeypatch.setattr(
        harness.ComparedTask, "_average_weights", lambda self: now_s.append(now_s.pop() + 0.5)
    )
    for _ in range(3):
        now_s[0] += 1.0
        task.on_train_batch_end(None, 0, 0)
    assert task.seconds == 4.5


@pytest.mark.slow
def test_training_side_by_side(folders: dict[str, str], tmp_path: Path) -> None:
    arguments = [*SMALL, f"out={tmp_path / 'out'}"]
    arguments += [f"peers.{name}={folders[name]}" for name in ("motionagformer", "stcformer")]
    arguments += ["only=[ours,residual_mlp,motionagformer,motionbert,stcformer]", "other_window_frames=[27]"]
    finished = run_tool("side_by_side.py", *arguments)
    assert finished.returncode == 0, finished.stderr
    assert "motionbert is left out: git clone" in finished.stdout
    report = json.loads((tmp_path / "out" / "side_by_side.json").read_text())
    rows = report["rows"]
    assert list(rows) == ["ours", "residual_mlp", "motionagformer", "stcformer"]
    for name, row in rows.items():
        assert [run["seed"] for run in row["runs"]] == [0, 1]
        assert all(run["steps"] == 2 and run["seconds"] > 0 for run in row["runs"])
        lengths = ["9", "27"] if name in ("ours", "stcformer") else ["9"]
        assert list(row["runs"][0]["errors"]["model"]) == lengths
        assert row["costs"]["peak_memory_bytes"] > 0
        assert f"│ {name} " in finished.stdout
    baselines = {
        name: row["runs"][0]["errors"]["constant_pose"]["9"]["mpjpe_mm"] for name, row in rows.items()
    }
    del baselines["residual_mlp"]  # has more clips a step
    assert list(baselines.values()) == pytest.approx([baselines["ours"]] * 3)  # all others saw the same
    of_run = tmp_path / "out" / "ours" / "seed_0" / "model.safetensors"
    evaluated = run_tool(
        "eval_pose.py", f"weights={of_run}", *SMALL_MOTION, f"out={tmp_path / 'evaluated.json'}"
    )
    assert evaluated.returncode == 0, evaluated.stderr
    errors = json.loads((tmp_path / "evaluated.json").read_text())["total"]
    assert errors["mpjpe_mm"] == pytest.approx(rows["ours"]["runs"][0]["errors"]["model"]["9"]["mpjpe_mm"])
    assert not (tmp_path / "out" / "stcformer" / "seed_0" / "model.safetensors").exists()
    result = tmp_path / "out" / "ours" / "seed_0" / "result.json"
    written = result.stat().st_mtime_ns
    (tmp_path / "out" / "ours" / "seed_1" / "result.json").unlink()
    again = run_tool("side_by_side.py", *arguments, "only=[ours]")
    assert again.returncode == 0, again.stderr
    assert result.stat().st_mtime_ns == written
    assert (tmp_path / "out" / "ours" / "seed_1" / "result.json").is_file()
    other = run_tool("side_by_side.py", *arguments, "loss.velocity=1")
    assert other.returncode == 2
    assert "holds a run with loss.velocity=2.0, not 1; set it likewise" in other.stderr
