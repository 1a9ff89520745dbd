"""Models side by side: rows of overrides, runs that are kept, the report of them."""

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from command_fixtures import composed, run_tool
from lifting_fixtures import SMALL_MOTION

from core.weights import save_weights

SMALL = [
    "data=procedural",
    *SMALL_MOTION,
    *("backbone.dim=16", "backbone.context_dim=32", "backbone.dim_representation=16"),
    "full_clips={num_frames:9,batch_size:2}",
    *("schedule.max_seconds=null", "schedule.max_steps=2", "schedule.validation_interval=2"),
    *("validation.max_sequences=1", "cost_seconds=0", "seeds=[0,1]"),
]


def test_errors_that_a_run_does_not_have_are_dashes(peers: ModuleType) -> None:
    report = importlib.import_module("benchmarks.comparison.report")
    assert report._spread([1.0, 3.0]) == "2.0 ± 1.4"
    for missing in (None, float("nan")):
        assert report._spread([1.0, missing]) == "–"


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
        (
            "+rows.x=['validation.split=[val]']",
            r"Row x: validation\.split=\['val'\] must be the name of one split",
        ),
        (
            "+rows.x=['evaluation_split=[test]']",
            r"Row x: evaluation_split=\['test'\] must be the name of one",
        ),
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
        ("+rows.x=['+loss.foo=1']", "Row x: .*foo"),
        ("+rows.x=['trainer.precision=foo']", r"Row x: trainer\.precision"),
        ("+rows.x=['schedule.backbone_learning_rate_scale=0.0']", "Row x: .* begins with random numbers"),
        ("+rows.x=['schedule.trunk_learning_rate_scale=0.5']", r"Row x: .*trunk_learning_rate_scale=0\.5"),
        ("clock=sun", "choose cpu or wall"),
        (
            "course=other",
            "course='other' is not a choice; choose one of full, short_first, growing, many_short, own",
        ),
        ("+rows.x=['peer={name: motionbert}']", "a peer needs a name and a depth"),
        ("+rows.x=['peer={name: motionbert, depth: 1, width: 8}']", "a peer has no width"),
        ("+rows.x=['peer={name: dstformer, depth: 1}']", "there is no predecessor 'dstformer'"),
        ("+rows.x=['match={quantity: parameters}']", "match needs the keys quantity, key, multiple_of"),
        (
            "+rows.x=['match={quantity: parameters, key: dim, multiple_of: 8}']",
            r"Row x: match.key='dim' is no width",
        ),
        (
            "+rows.x=['backbone.num_blocks=0',"
            "'match={quantity: parameters, key: backbone.mlp_ratio, multiple_of: 8}']",
            r"Row x: match.key=backbone.mlp_ratio does not change the parameters",
        ),
        (
            "+rows.x=['peer={name: motionbert, depth: 0}']",
            "Row x: a peer's depth must be a whole number of at",
        ),
        (
            "backbone.weights=a.safetensors",
            r"backbone.weights=a.safetensors would give some rows what others",
        ),
        ("head.dim_representation=7", "gives features of .* channels and the head takes 7"),
    ):
        overrides = [*SMALL, override]
        with pytest.raises(ValueError, match=problem):
            harness.compare(composed("side_by_side", *overrides), overrides)
    with pytest.raises(ValueError, match=r"Experiments hold for train_pose\.py alone"):
        harness.compare(composed("side_by_side", *SMALL), [*SMALL, "experiment=pose_mlp"])


def test_what_of_the_command_line_does_not_reach_a_row_is_said(harness: ModuleType) -> None:
    overrides = [*SMALL, "schedule.muon_learning_rate=null", "backbone.dim=16", "only=[ours,residual_mlp]"]
    configs, sentences, _ = harness._row_configs(composed("side_by_side", *overrides), overrides)
    assert configs["ours"]["schedule"]["muon_learning_rate"] is None
    assert configs["residual_mlp"]["schedule"]["muon_learning_rate"] == 0.005
    assert sentences == [
        "residual_mlp keeps its own schedule.muon_learning_rate, whatever the command line says."
    ]
    overrides = [*SMALL, "+rows.x=['backbone.fusion=mean']", "backbone.fusion=concat", "only=[ours,x]"]
    _, sentences, _ = harness._row_configs(composed("side_by_side", *overrides), overrides)
    assert sentences == ["x keeps its own backbone.fusion, whatever the command line says."]


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


def test_seconds_are_the_processors_or_the_clocks(
    harness: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.time, "process_time", lambda: 3.0)
    monkeypatch.setattr(harness.time, "monotonic", lambda: 5.0)
    for clock, seconds in (("cpu", 3.0), ("wall", 5.0)):
        row = harness._run_config(harness._composed([*SMALL, "~rows", f"clock={clock}"]))
        assert harness.ComparedTask(row | {"seed": 0, "out": "unused"})._clock_s() == seconds


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
def test_a_run_that_diverged_leaves_no_weights(
    harness: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = [*SMALL, "schedule.learning_rate=1e30", "schedule.muon_learning_rate=1e30", "~rows"]
    row = harness._run_config(harness._composed(overrides))
    display = harness.ProgressDisplay()
    result = harness._finished_run(row | {"seed": 0, "out": str(tmp_path)}, display)
    assert result["steps"] == 2
    assert "The run diverged" in capsys.readouterr().out
    assert (tmp_path / "result.json").is_file()
    assert not (tmp_path / "model.safetensors").exists()


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
