"""The benchmark tool: its options, its report, and that timing is fair."""

import importlib
import json
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from command_fixtures import run_tool

TOOLS = Path(__file__).resolve().parents[1] / "tools"

_ONCE = {
    "seconds": 0.0,
    "min_rounds": 1,
    "warm_up_rounds": 0,
    "clock_s": time.perf_counter,
}  # defaults of time_side_by_side


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TOOLS))
    return importlib.import_module("bench")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Say what to measure.* There are: .*body"),
        (["bodyy"], "nothing called 'bodyy' to measure. There are: .*body"),
        (["body", "thread=2"], "no option 'thread=2': give out=<file.json> or threads=<number>"),
        (["body", "out"], "no option 'out'"),
        (["body", "threads=0"], "threads must be a whole number of at least 1"),
        (["body", "threads=two"], "threads must be a whole number of at least 1"),
        (["peers", "motionagformer=x", "sizes=xs,m"], "sizes=xs,m has no size m; choose from xs, s, b"),
    ],
)
def test_wrong_arguments_are_named(bench: ModuleType, arguments: list[str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        bench.main(arguments)


def test_a_report_that_cannot_be_written_is_said_at_once(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(
        importlib.import_module("benchmarks.body"), "run", lambda threads: pytest.fail("measured")
    )
    with pytest.raises(OSError, match="file"):
        bench.main(["body", f"out={tmp_path / 'file' / 'bench.json'}"])


def test_a_missing_reference_is_said(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "smplx", None)
    with pytest.raises(ValueError, match="smplx, is not installed: pip install smplx"):
        importlib.import_module("benchmarks.body").run(1)


def test_report_holds_rows_and_versions(bench: ModuleType, tmp_path: Path) -> None:
    timing = importlib.import_module("benchmarks.timing")
    row = timing.BenchRow(
        case="forward",
        ours_s=0.5,
        reference="other",
        reference_s=2.0,
        max_abs_diff=1e-7,
        sizes={"batch": 1},
        dtype="float32",
        threads=2,
    )
    path = tmp_path / "new" / "bench.json"
    timing.write_rows(path, "body", [row])
    timing.print_rows("body", [row])
    report = json.loads(path.read_text())
    assert report["rows"][0]["ratio"] == 4
    assert {"case", "ours_s", "reference", "reference_s", "ratio", "max_abs_diff"} <= report["rows"][0].keys()
    assert {"python", "torch", "numpy", "smplx"} <= report["versions"].keys()
    assert [file.name for file in path.parent.iterdir()] == ["bench.json"]


def test_the_two_sides_take_turns(bench: ModuleType) -> None:
    timing = importlib.import_module("benchmarks.timing")
    calls: list[str] = []
    timing.time_side_by_side(lambda: calls.append("a"), lambda: calls.append("b"), seconds=0, min_rounds=4)
    assert "".join(calls[6:]) == "abbaabba"


def test_another_clock(bench: ModuleType) -> None:
    """One of 1 s a call of ours and 3 of the reference, whatever time it takes."""
    timing = importlib.import_module("benchmarks.timing")
    now_s = [0.0]

    def spend(seconds: float) -> None:
        now_s[0] += seconds

    elapsed = timing.time_side_by_side(
        lambda: spend(1.0), lambda: spend(3.0), seconds=0, min_rounds=3, clock_s=lambda: now_s[0]
    )
    assert elapsed == (1.0, 3.0)


@pytest.mark.slow
def test_body_rows_agree_with_smplx(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("smplx")
    body = importlib.import_module("benchmarks.body")
    timing = importlib.import_module("benchmarks.timing")
    monkeypatch.setattr(body, "BATCH_SIZES", (1, 8))
    monkeypatch.setattr(timing.time_side_by_side, "__kwdefaults__", _ONCE)
    rows = body.run(1)
    assert len(rows) == 6
    assert all(row.max_abs_diff < 1e-5 for row in rows)


def test_our_muon_steps_like_torchs(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    optimiser = importlib.import_module("benchmarks.optimiser")
    timing = importlib.import_module("benchmarks.timing")
    monkeypatch.setattr(optimiser, "BACKBONES", ("ssr_stf_tiny",))
    monkeypatch.setattr(timing.time_side_by_side, "__kwdefaults__", _ONCE)
    (row,) = optimiser.run(1)
    assert row.sizes["matrices"] == 45
    # A step is 2e-3 a number, root mean square; torch's rounds to bfloat16 everywhere, ours where that is fast.
    assert row.max_abs_diff < 5e-4


def test_help_of_a_subject_lists_its_options() -> None:
    finished = run_tool("bench.py", "peers", "--help")
    assert finished.returncode == 0
    assert "Options: out, threads, motionagformer, sizes, clock, rounds" in finished.stdout
