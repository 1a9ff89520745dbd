import csv
import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from command_fixtures import run_tool
from lifting_archives import mpi_inf_3dhp, write_3dhp
from mesh_fixtures import mesh_sequence, write_mesh_set
from test_weights import BACKBONE, CLIP, HEAD
from test_weights import _model as weights_model
from torch import Tensor

from body_models.open_body import load_open_body, load_open_body_regressor
from body_models.parameters import BodyParameters
from core.datasets.lifting_sequences import PreparedLifting
from core.datasets.mesh_sequences import MeshSequence, read_mesh_sequence
from core.datasets.preparation import prepare
from core.progress import ProgressDisplay
from core.skeleton import H36M_17
from core.weights import save_weights
from mesh_head.benchmark_evaluation import (
    BenchmarkEvaluator,
    BenchmarkResult,
    ModelRecovery,
    PreparedMeshData,
    evaluate_benchmark,
    recorded_files,
    true_parameters,
)
from mesh_head.evaluation import EvaluationResult
from mesh_head.evaluation_report import report_path, report_recordings
from mesh_head.motion_data import ProceduralMotion
from mesh_head.protocols import PROTOCOLS
from mesh_head.smpl_head import FACING_CAMERA, ConstantPose

CPU = torch.device("cpu")


class TruthShifted:
    """The ground truth as prediction, its root moved."""

    def __init__(self, x_m: float = 0.0) -> None:
        self.x_m = x_m

    def __call__(self, sequence: MeshSequence, device: torch.device) -> BodyParameters:
        parameters = true_parameters(sequence, device)
        shift_m = parameters.translation_m.new_tensor([self.x_m, 0, 0])
        return replace(parameters, translation_m=parameters.translation_m + shift_m)


def _evaluator(recover, *, protocols=tuple(PROTOCOLS)) -> BenchmarkEvaluator:
    return BenchmarkEvaluator(
        recover=recover,
        load_body=load_open_body,
        regressor=load_open_body_regressor("h36m_17"),
        protocols=[PROTOCOLS[name] for name in protocols],
        device=CPU,
    )


def _neutral_evaluator(recover) -> BenchmarkEvaluator:
    """Every protocol, with the neutral body as truth."""
    evaluator = _evaluator(recover)
    evaluator.protocols = tuple(replace(protocol, true_body="neutral") for protocol in evaluator.protocols)
    return evaluator


def _still_model() -> ModelRecovery:
    model = ConstantPose(torch.tensor(FACING_CAMERA), torch.eye(3).repeat(23, 1, 1), 10)
    return ModelRecovery(model=model, window_frames=9)


def _totals(evaluator: BenchmarkEvaluator, sequence: MeshSequence) -> dict[str, dict[str, float]]:
    metrics = evaluator.evaluate(sequence).metrics
    return {name: metric.errors().as_dict() for name, metric in metrics.items()}


def test_truth_as_prediction_is_zero_under_every_protocol() -> None:
    for errors in _totals(_neutral_evaluator(TruthShifted()), mesh_sequence(9)).values():
        assert errors.pop("num_frames") == 9
        assert errors.pop("pck_percent", 100) == errors.pop("auc_percent", 100) == 100
        assert errors == {name: pytest.approx(0, abs=5e-4) for name in errors}


def test_a_ten_millimetre_shift_counts_under_vibe_alone() -> None:
    totals = _totals(_neutral_evaluator(TruthShifted(0.010)), mesh_sequence(5))
    for name, errors in totals.items():
        assert errors["mpjpe_mm"] == pytest.approx(0, abs=5e-4)
        if "mpve_mm" in errors:
            assert errors["mpve_mm"] == pytest.approx(10 if name == "vibe" else 0, abs=5e-4)


def test_another_gender_counts_where_truth_is_gendered() -> None:
    """The same parameters on the male body; protocols with a neutral truth cannot tell."""
    sequence = mesh_sequence(4, gender="male")
    parameters = true_parameters(sequence, CPU)
    regressor = load_open_body_regressor("h36m_17")
    male, neutral = (load_open_body(gender)(parameters) for gender in ("male", "neutral"))
    hips = [H36M_17.index("left_hip"), H36M_17.index("right_hip")]

    def mean_distance_mm(about_male: Tensor, about_neutral: Tensor, points: str = "vertices_m") -> float:
        difference = (getattr(male, points) - about_male) - (getattr(neutral, points) - about_neutral)
        return 1000 * difference.norm(dim=-1).mean().item()

    male_joints, neutral_joints = regressor(male.vertices_m), regressor(neutral.vertices_m)
    pelvis = torch.from_numpy(load_open_body().arrays.J_regressor[:1]).float()
    expected = {
        "vibe": 0.0,
        "motionbert": 0.0,
        "wham": mean_distance_mm(
            *(joints[:, hips].mean(1, True) for joints in (male_joints, neutral_joints))
        ),
        "pose2mesh": mean_distance_mm(pelvis @ male.vertices_m, pelvis @ neutral.vertices_m),
    }
    totals = _totals(_evaluator(TruthShifted()), sequence)
    for name, mpve_mm in expected.items():
        assert totals[name]["mpve_mm"] == pytest.approx(mpve_mm, abs=1e-3), name
        assert (totals[name]["mpve_mm"] > 5) == (mpve_mm > 0)
    joints = mean_distance_mm(male.joints_m[:, :1], neutral.joints_m[:, :1], "joints_m")
    assert totals["3dpw-eval"]["mpjpe_mm"] == pytest.approx(joints, abs=1e-3)
    assert totals["spin"]["mpjpe_mm"] > 1
    assert totals["motionbert"]["mpjpe_mm"] == pytest.approx(0, abs=5e-4)


def test_frames_in_pieces_are_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sequence = mesh_sequence(11, gender="female")
    whole = _totals(_evaluator(_still_model()), sequence)
    monkeypatch.setattr("mesh_head.benchmark_evaluation._FRAMES_AT_ONCE", 4)
    pieces = _totals(_evaluator(_still_model()), sequence)
    for name, errors in whole.items():
        assert pieces[name] == pytest.approx(errors, rel=1e-5)
    assert whole["wham"]["mpjpe_mm"] > 50


def test_only_evaluated_frames_count_and_accelerations_need_three_in_a_row() -> None:
    whole = mesh_sequence(12)
    evaluated = np.ones(12, bool)
    evaluated[[0, 5]] = False
    gaps = replace(whole, evaluated=evaluated, frame_ids=np.array([*range(10), 20, 21]))
    evaluator = _evaluator(_still_model(), protocols=("motionbert",))
    metric = evaluator.evaluate(gaps).metrics["motionbert"]
    assert metric.num_frames == 10
    assert metric.num_accelerations == 2 + 2  # 1–4 and 6–9; 20 and 21 are two alone
    assert evaluator.evaluate(whole).metrics["motionbert"].num_accelerations == 10
    nothing = evaluator.evaluate(replace(whole, evaluated=np.zeros(12, bool)))
    assert nothing.worst is None
    assert nothing.metrics["motionbert"].num_frames == 0


def test_a_model_sees_straight_lines_through_gaps() -> None:
    sequence = mesh_sequence(6)
    gappy = replace(sequence, frame_ids=np.array([3, 4, 5, 8, 9, 10]))
    seen = []

    class Recorder(torch.nn.Module):
        def forward(self, keypoints: Tensor) -> BodyParameters:
            seen.append(keypoints)
            return _still_model().model(keypoints)

    recovered = ModelRecovery(model=Recorder(), window_frames=8)(gappy, CPU)
    assert recovered.batch_shape == (6,)
    confidence = seen[0][0, :, :, 2]
    before, after = confidence[2], confidence[5]
    torch.testing.assert_close(confidence[3:5], torch.stack([2 * before + after, before + 2 * after]) / 3)
    unseen = replace(sequence, confidence=np.zeros((6, 17)))
    assert ModelRecovery(model=Recorder(), window_frames=8)(unseen, CPU).root_rotmat.isfinite().all()


def test_a_model_sees_the_frame_rate_that_it_knows() -> None:
    sequence = mesh_sequence(9)  # at 30 frames a second
    seen = []

    class Recorder(torch.nn.Module):
        def forward(self, keypoints: Tensor) -> BodyParameters:
            seen.append(keypoints)
            return _still_model().model(keypoints)

    for fps in (None, 15.0):
        recovered = ModelRecovery(model=Recorder(), window_frames=5, fps=fps)(sequence, CPU)
        assert recovered.batch_shape == (9,)
    as_they_are, matched = seen
    assert (len(as_they_are), len(matched)) == (3, 1)  # windows that overlap by half


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("prepared")
    people = enumerate([(7, "male"), (5, "female"), (3, "male")])
    sequences = [mesh_sequence(n, seed, gender=gender, dataset="3dpw") for seed, (n, gender) in people]
    write_mesh_set(root, "test", *sequences)
    return root


def _evaluate(prepared: Path, **options) -> tuple[BenchmarkEvaluator, BenchmarkResult]:
    evaluator = _evaluator(_still_model(), protocols=("wham", "motionbert", "3dpw-eval"))
    files = PreparedMeshData(dataset="3dpw", root=str(prepared)).files("test")
    return evaluator, evaluate_benchmark(evaluator, files, **options)


def test_totals_files_and_picture(prepared: Path, tmp_path: Path) -> None:
    done = []
    evaluator, result = _evaluate(prepared, on_sequence_done=lambda: done.append(1))
    assert len(done) == 3
    for protocol, total in result.errors.total.items():
        parts = [errors[protocol] for errors in result.errors.per_sequence.values()]
        mean = np.average([part.mpjpe_mm for part in parts], weights=[part.num_frames for part in parts])
        assert total.mpjpe_mm == pytest.approx(mean)
        assert total.num_frames == 15
    assert [frame.error_mm for frame in result.worst] == sorted(
        (frame.error_mm for frame in result.worst), reverse=True
    )
    out = tmp_path / "result.json"
    facts = {"dataset": "3dpw", "split": "test"}
    display = ProgressDisplay()
    written = report_recordings(display, out, result, evaluator, facts, num_worst_frames=2, renderer="torch")
    assert [path.name for path in written] == ["result.json", "result.csv", "result_worst.png"]
    assert all(path.stat().st_size for path in written)
    reports = json.loads(out.read_text())["results"]
    assert [report["protocol"] for report in reports] == ["wham", "motionbert", "3dpw-eval"]
    assert "mpve_mm" not in reports[2]["total"]
    rows = list(csv.DictReader(io.StringIO(written[1].read_text())))
    assert len(rows) == 3 * (3 + 1)
    total = next(row for row in rows if (row["protocol"], row["sequence"]) == ("motionbert", "total"))
    assert float(total["mpve_mm"]) == reports[1]["total"]["mpve_mm"]
    assert total["pck_percent"] == ""


@pytest.mark.slow
def test_processes_count_what_one_counts(prepared: Path) -> None:
    alone, shared = (_evaluate(prepared, workers=workers)[1].errors for workers in (1, 2))
    assert list(alone.per_sequence) == list(shared.per_sequence)
    for protocol, total in alone.total.items():
        for one, other in [
            (total, shared.total[protocol]),
            *(
                (alone.per_sequence[name][protocol], shared.per_sequence[name][protocol])
                for name in alone.per_sequence
            ),
        ]:
            assert other.num_frames == one.num_frames
            assert other.as_dict() == pytest.approx(one.as_dict(), rel=1e-5)


def test_totals_do_not_depend_on_who_counted(prepared: Path) -> None:
    evaluator, result = _evaluate(prepared)
    files = PreparedMeshData(dataset="3dpw", root=str(prepared)).files("test")
    one_by_one = [evaluator.evaluate(read_mesh_sequence(path)) for path in reversed(files)]
    sent = pickle.loads(pickle.dumps(one_by_one))[::-1]
    totals = EvaluationResult.of({sequence.name: sequence.metrics for sequence in sent}).total
    assert {name: total.as_dict() for name, total in totals.items()} == {
        name: total.as_dict() for name, total in result.errors.total.items()
    }


def test_what_is_not_prepared_is_told_how(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.root=FOLDER.*prepare_data\.py dataset=3dpw root=ARCHIVE"):
        PreparedMeshData(dataset="3dpw", root=None).files("test")
    with pytest.raises(ValueError, match="no prepared mesh sequence"):
        PreparedMeshData(dataset="3dpw", root=str(tmp_path)).files("test")
    original = tmp_path / "sequenceFiles" / "test" / "downtown_walking_00.pkl"
    original.parent.mkdir(parents=True)
    original.write_bytes(b"")
    for root in (tmp_path, tmp_path / "sequenceFiles", original.parent):
        with pytest.raises(ValueError, match=r"prepare_data\.py dataset=3dpw root=.* out=FOLDER"):
            PreparedMeshData(dataset="3dpw", root=str(root)).files("test")


@pytest.mark.parametrize("name", PROTOCOLS)
def test_neutral_truth_is_not_called_gendered(name: str) -> None:
    evaluator, sequence = _evaluator(TruthShifted(), protocols=(name,)), mesh_sequence(2)
    if PROTOCOLS[name].true_body == "neutral":
        assert evaluator.evaluate(sequence).metrics[name].num_frames == 2
    else:
        with pytest.raises(ValueError, match=rf"neutral body, but protocol {name} .*=\[vibe,motionbert\]"):
            evaluator.evaluate(sequence)


def test_another_set_is_not_called_by_this_name(tmp_path: Path) -> None:
    sequences = [
        mesh_sequence(2, seed, dataset=dataset) for seed, dataset in enumerate(("3dpw", "h36m_mesh"))
    ]
    write_mesh_set(tmp_path, "test", *sequences)
    with pytest.raises(ValueError, match=r"sequence_1\.npz is of the set h36m_mesh, not of 3dpw; name"):
        recorded_files(PreparedMeshData(dataset="3dpw", root=str(tmp_path)), "test")


def test_lifting_data_are_sent_to_their_own_command() -> None:
    with pytest.raises(ValueError, match=r"tools/eval_pose\.py clips=prepared"):
        recorded_files(object.__new__(PreparedLifting), "test")
    motion = ProceduralMotion(num_sequences={"test": 1}, num_frames=9, fps=30.0, seed=0)
    assert recorded_files(motion, "test") is None


def test_the_json_is_not_called_csv(tmp_path: Path) -> None:
    for name in ("result.csv", "result.CSV"):
        with pytest.raises(ValueError, match=r"say out=.*result\.json\."):
            report_path(str(tmp_path / name))
    assert report_path("a/result.json") == Path("a/result.json")


def test_one_body_for_all_genders_is_refused() -> None:
    evaluator = _evaluator(TruthShifted())
    evaluator.load_body = lambda gender: load_open_body()
    with pytest.raises(ValueError, match="one and the same body for neutral and male"):
        evaluator.evaluate(mesh_sequence(2, gender="male"))


def test_joints_alone_cannot_be_evaluated() -> None:
    sequence = replace(mesh_sequence(3), poses_rotvec=None, betas=None, joints_cam_m=np.zeros((3, 17, 3)))
    with pytest.raises(ValueError, match="joints but no body"):
        _evaluator(_still_model()).evaluate(sequence)


@pytest.mark.slow
def test_what_the_command_refuses(prepared: Path, tmp_path: Path) -> None:
    write_3dhp(tmp_path, *mpi_inf_3dhp(10))
    prepare("3dhp", tmp_path, tmp_path / "3dhp", on_progress=lambda done, of: None, workers=1)
    for arguments, expected in (
        (["data=prepared_lifting", f"data.root={tmp_path / '3dhp'}"], "tools/eval_pose.py clips=prepared"),
        (["data=3dpw", f"data.root={prepared}", f"out={tmp_path / 'result.csv'}"], "result.json"),
        (
            ["data=3dpw", "data.dataset=h36m_mesh", f"data.root={prepared}"],
            "of the set 3dpw, not of h36m_mesh",
        ),
    ):
        finished = run_tool("eval_mesh.py", *arguments)
        assert finished.returncode == 2, finished.stderr
        assert expected in finished.stderr
        assert len(finished.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "result.csv").exists()


@pytest.mark.slow
def test_command(prepared: Path, tmp_path: Path) -> None:
    save_weights(tmp_path / "m.safetensors", weights_model(), backbone=BACKBONE, head=HEAD, clip=CLIP)
    finished = run_tool(
        "eval_mesh.py",
        "data=3dpw",
        f"data.root={prepared}",
        f"weights={tmp_path / 'm.safetensors'}",
        f"protocol=[{','.join(PROTOCOLS)}]",
        f"out={tmp_path / 'result.json'}",
        "worst_frames=0",
    )
    assert finished.returncode == 0, finished.stderr
    reports = json.loads((tmp_path / "result.json").read_text())["results"]
    assert [report["protocol"] for report in reports] == list(PROTOCOLS)
    for report in reports:
        assert report["total"]["num_frames"] == 15
        assert f"3dpw test, protocol {report['protocol']}" in finished.stdout
        assert report["definition"].startswith(f"{report['protocol']}: ")
