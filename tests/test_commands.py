"""The commands as a user runs them."""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from command_fixtures import CONFIGS, ROOT, composed, run_tool
from gltf_player import GltfPlayer
from hydra import initialize_config_dir
from PIL import Image

from core.motion.sequence import read_motion_npz
from core.process_settings import MALLOC_SETTINGS

sys.path.insert(0, str(ROOT / "tools"))
from command_help import REFUSED
from command_line import run_command
from configuration import configuration

SHARED = ROOT.parent / "shared"
# Small enough for seconds; everything else as it ships.
SMALL = (
    "backbone.weights=null",
    "schedule.max_seconds=null",
    "schedule.max_steps=4",
    "schedule.validation_interval=2",
    "data.num_sequences={train:2,val:2}",
    "data.num_frames=60",
    "curriculum=[{until:0.5,num_frames:9,batch_size:4,active_blocks:1},{until:1.0,num_frames:9,batch_size:2,active_blocks:null}]",
    "evaluation.max_stretches=2",
)


@pytest.mark.skipif(platform.system() == "Windows", reason="no pseudo-terminals")
def test_a_terminal_says_what_is_waited_for_and_a_pipe_does_not() -> None:
    import pty

    ours, theirs = pty.openpty()
    command = (sys.executable, "tools/predict_mesh.py", "input=missing.json", "out=nowhere")
    on_terminal = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = os.read(ours, 10_000).decode()
    os.close(ours)
    assert on_terminal.returncode == 2
    assert seen.startswith("Loading …\r")
    assert seen.split("\r")[1].strip() == ""  # over what is waited for, before anything else
    assert seen.split("\r")[2].startswith("error: Cannot read keypoints from missing.json")
    through_pipe = run_tool("predict_mesh.py", "input=missing.json", "out=nowhere")
    assert through_pipe.stderr.startswith("error: Cannot read keypoints from missing.json")


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    finished = run_tool("train_mesh.py", *SMALL, f"out={out}")
    assert finished.returncode == 0, finished.stderr
    assert "MPVE" in finished.stdout
    return out


@pytest.mark.slow
def test_training_leaves_what_it_promises(small_run: Path) -> None:
    metrics = json.loads((small_run / "metrics.json").read_text())
    keys = {"mpjpe_mm", "pa_mpjpe_mm", "mpve_mm", "accel_mm_per_s2"}
    assert metrics["protocol"] == "wham"
    assert keys <= set(metrics["val"])
    assert keys <= set(metrics["baseline_mean_pose"])
    assert metrics["num_parameters"] > 0
    assert metrics["seconds"] > 0
    mesh = trimesh.load(small_run / "mesh.obj", process=False)
    assert mesh.is_watertight
    assert 1.2 < mesh.extents.max() < 2.6
    player = GltfPlayer(small_run / "motion.glb")
    assert len(player.key_times_s()) == 60
    # Someone whose height is a person's, whichever way this hardly trained model turns them.
    assert 1.2 < np.ptp(player.vertices(30), axis=0).max() < 2.6
    with Image.open(small_run / "preview.png") as picture:
        assert min(picture.size) > 400
    with Image.open(small_run / "learning.png") as picture:
        assert min(picture.size) > 400
    assert "schedule" in (small_run / "config.yaml").read_text()
    assert (small_run / "commit.txt").read_text()


@pytest.mark.slow
def test_evaluation_of_a_run(small_run: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    finished = run_tool(
        "eval_mesh.py",
        f"weights={small_run / 'model.safetensors'}",
        f"out={result}",
        "data.num_sequences={test:2}",
        "data.num_frames=40",
        "protocol=[wham,motionbert]",
    )
    assert finished.returncode == 0, finished.stderr
    reports = json.loads(result.read_text())["results"]
    assert [report["protocol"] for report in reports] == ["wham", "motionbert"]
    for report in reports:
        assert "on the neutral body; over all frames" in report["definition"]
        frames = [errors["num_frames"] for errors in report["sequences"].values()]
        assert sum(frames) == report["total"]["num_frames"] == 80


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "keypoints").is_dir(), reason="no real keypoint files beside the checkout")
def test_prediction_from_a_detectors_file(small_run: Path, tmp_path: Path) -> None:
    finished = run_tool(
        "predict_mesh.py",
        f"weights={small_run / 'model.safetensors'}",
        f"input={SHARED / 'keypoints' / 'alphapose_halpe26.json'}",
        f"out={tmp_path}",
        "sheet_frames=3",
    )
    assert finished.returncode == 0, finished.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"motion.npz", "motion.glb", "mesh.obj", "contact_sheet.png", "prediction.json"}
    facts = json.loads((tmp_path / "prediction.json").read_text())
    assert facts["frames"] == [0, 808]
    assert facts["image_size_is_assumed"] is facts["focal_is_assumed"] is True
    assert facts["body_model"] == "open" == read_motion_npz(tmp_path / "motion.npz").body_model
    assert "Give it with image_size=[height,width]" in finished.stdout


@pytest.mark.parametrize("tool", ["train_mesh.py", "eval_mesh.py", "predict_mesh.py"])
def test_help_and_typos(tool: str) -> None:
    shown = run_tool(tool, "--help")
    assert shown.returncode == 0
    assert "python tools/" in shown.stdout
    assert "body_model: open" in shown.stdout
    mistyped = run_tool(tool, "devise=cpu")
    assert mistyped.returncode == 2
    assert "devise" in mistyped.stderr
    assert "Traceback" not in mistyped.stderr


def test_wrong_values_end_with_one_sentence(tmp_path: Path) -> None:
    for tool, arguments, expected in (
        ("eval_mesh.py", ["weights=nowhere.safetensors"], "nowhere.safetensors"),
        ("predict_mesh.py", ["input=nowhere.json", f"out={tmp_path}"], "nowhere.json"),
        ("predict_mesh.py", [], "input=… has to be given"),
        ("predict_mesh.py", ["input=2024"], "Cannot read keypoints from 2024: "),
        ("predict_mesh.py", ["input=it's my clip, (1).json"], "keypoints from it's my clip, (1).json: "),
        ("predict_mesh.py", ["input=[a.json,b.json]"], "input takes the name of a file or folder"),
        ("predict_mesh.py", ["input=x.json", "fsp=25"], "no setting 'fsp'. Did you mean fps?"),
        ("predict_mesh.py", ["input=x.json", "+fsp=25"], "no setting 'fsp'. Did you mean fps?"),
        ("train_mesh.py", [*SMALL, f"out={tmp_path}", "protocol=[wham,spin]"], "training takes one"),
        ("predict_mesh.py", ["input=nowhere.json", "renderer=crayon"], "crayon"),
        ("train_mesh.py", [*SMALL, f"out={tmp_path}", "loss.vertixes=1"], "vertixes"),
        ("train_mesh.py", ["loss.joints=abc", f"out={tmp_path}"], "loss.joints takes a number"),
        ("train_mesh.py", ["schedule.max_steps=abc", f"out={tmp_path}"], "of at least 1, or null, not abc"),
        (
            "train_mesh.py",
            ["+noise.source_shares=null", f"out={tmp_path}"],
            "noise.source_shares must be three",
        ),
        ("train_mesh.py", ["+curriculum.0.speed=1", f"out={tmp_path}"], "Phase 0 of the curriculum"),
        ("train_mesh.py", ["experiment=pose_mlp", f"out={tmp_path}"], "of tools/train_pose.py"),
        ("train_mesh.py", ["data=3dpw", "data.root=x", f"out={tmp_path}"], "data=mixed data.sets.three_dpw"),
        (
            "train_mesh.py",
            [*SMALL, f"out={ROOT / 'README.md'}"],
            "README.md is a file, and this",
        ),
        ("eval_mesh.py", ["mirror_test=maybe"], "takes true or false, as in mirror_test=false"),
        (
            "eval_mesh.py",
            ["evaluation.stretch_frames=0"],
            "stretch_frames must be a whole number of at least 1",
        ),
        ("predict_mesh.py", ["input=x.json", "image_size=1080"], "give [height,width]"),
        ("predict_mesh.py", ["input=x.json", "image_size=[1080]"], "give [height,width]"),
        ("predict_mesh.py", ["input=x.json", "fps=fast"], "fps=fast is no frame rate"),
    ):
        finished = run_tool(tool, *arguments)
        assert finished.returncode == 2, (tool, finished.stderr)
        assert expected in finished.stderr
        assert len(finished.stderr.strip().splitlines()) == 1, finished.stderr
    assert not list(tmp_path.iterdir())


REQUIRED = {
    "predict_mesh": ["input=x.json"],
    "export_mesh": ["motion=x.npz"],
    "side_by_side": ["data.root=x"],
}


@pytest.mark.parametrize(
    ("command", "override", "problem"),
    [
        ("train_mesh", "+schedule.foo=2", "no setting 'schedule.foo'"),
        ("train_mesh", "schedule.maxseconds=2", r"Did you mean schedule\.max_seconds"),
        ("train_mesh", "+body_model.foo=1", r"no setting 'body_model\.foo'"),
        ("train_pose", "+validation.foo=1", r"no setting 'validation\.foo'"),
        ("train_mesh", "~noise", "noise was taken away"),
        ("train_mesh", "~schedule.warmup_steps", r"schedule\.warmup_steps was taken away"),
        ("train_mesh", "noise.jitter_std=1", r"DetectorNoise .* with a plus: \+noise\.jitter_std"),
        ("train_mesh", "backbone.dimm=1", r"Did you mean backbone\.dim\?"),
        ("train_mesh", "+schedule.maxseconds=2", r"Did you mean schedule\.max_seconds"),
        ("eval_mesh", "--weights", "'--weights' is not understood: settings are key=value"),
        ("predict_mesh", "clip.json", "'clip.json' is not understood"),
        ("predict_mesh", "out=", "out= names nothing; give a file or folder, or leave it out"),
        ("predict_mesh", "image_size=1920,1080", r"several values; .*: image_size=\[1920,1080\]"),
        ("predict_mesh", "backbone=ssr_stf_xs", "no choice of backbone"),
        ("predict_mesh", "backbone=ssr_stf_x", "no choice of backbone"),
        (
            "train_mesh",
            "backbone=ssr_stf_x",
            r"no backbone=ssr_stf_x\. Did you mean backbone=ssr_stf_xs\?",
        ),
        (
            "train_mesh",
            "experiment=motoin",
            r"Did you mean experiment=motion\? Choose one of demo, mlp, motion,",
        ),
        ("train_mesh", "out=FILE", "is a file, and this command leaves a folder there"),
        ("train_mesh", "out=FILE/run", r"cannot be written: .*taken is no folder"),
        ("export_mesh", "out=FILE", "is a file, and this command leaves a folder there"),
        ("eval_mesh", "out=FILE/eval.json", r"cannot be written: .*taken is no folder"),
        ("eval_mesh", "out=FOLDER", "is a folder, and this command leaves a file there"),
        (
            "train_pose",
            "validation.split=[val]",
            r"validation\.split takes text, as in validation\.split=val\.",
        ),
        (
            "eval_pose",
            "split=[test]",
            r"split=\['test'\] is a list, and split takes text, as in split=test\.",
        ),
        ("eval_mesh", "data.split=[test]", r"data\.split takes text"),
        ("eval_pose", "windows=[tiled]", r"windows takes text"),
        ("side_by_side", "evaluation_split=[test]", r"evaluation_split takes text"),
        ("side_by_side", "validation.split=[val]", r"validation\.split takes text"),
        ("train_mesh", "data=mixed data.sets.three_dpw.split=[train]", r"sets\.three_dpw\.split takes text"),
        ("train_mesh", "backbone.fusion=[mean]", r"backbone\.fusion takes text"),
    ],
)
def test_wrong_keys_and_places_are_said_at_once(
    command: str, override: str, problem: str, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    override = override.replace("FILE", str(tmp_path / "taken")).replace("FOLDER", str(tmp_path))
    with (
        initialize_config_dir(str(CONFIGS), version_base="1.3"),
        pytest.raises(ValueError, match=problem),
    ):
        configuration(command, [*REQUIRED.get(command, []), *override.split()])


@pytest.mark.parametrize("name", ["1_2", "1e3", "true", "7", "0-2", "it's her"])
def test_people_and_files_are_called_as_they_are_written(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = configuration("predict_mesh", [f"input=~/{name}", f"person={name}", "out=a~b"])
        assert configuration("predict_mesh", ["input=x.json", "person=null"])["person"] is None
    assert config["person"] == name
    assert config["input"] == str(tmp_path / name)
    assert config["out"] == "a~b"


def test_constructor_arguments_may_be_added() -> None:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = configuration("train_mesh", ["+noise.jitter_std=0.01", "+cameras.fov_deg=[30,40]"])
    assert config["noise"]["jitter_std"] == 0.01
    assert config["cameras"]["fov_deg"] == [30, 40]


def test_a_command_that_is_to_end_clears_up(tmp_path: Path) -> None:
    """SIGTERM, as `kill` and schedulers send it, is answered as Ctrl-C is."""
    script = """
import os, signal, sys
from pathlib import Path
sys.argv = ["train_pose.py"]
from command_line import run_command
from core.atomic_write import written_whole

def main(config):
    with written_whole(Path(FOLDER) / "result.bin") as file:
        file.write(b"half")
        os.kill(os.getpid(), signal.SIGTERM)

run_command(main, "train_pose", "")
"""
    finished = subprocess.run(
        [sys.executable, "-c", script.replace("FOLDER", repr(str(tmp_path)))],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}"},
        capture_output=True,
        text=True,
    )
    assert (finished.returncode, finished.stderr) == (2, "error: Terminated.\n")
    assert not list(tmp_path.iterdir())


def test_a_command_takes_subnormal_numbers_for_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """They cost a trained model's attention several times its seconds; to who calls it, all is as it was."""
    monkeypatch.setattr("sys.argv", ["train_pose.py"])
    small = torch.tensor(1e-20)
    squares: list[float] = []
    run_command(lambda config: squares.append(float(small * small)), "train_pose", "")
    squares.append(float(small * small))
    assert squares[0] == 0.0
    assert squares[1] > 0.0


# 40 MiB that are used and freed, over and again, and the page faults once the heap has found its size.
ASKS_FOR_THE_SAME_MEMORY = """
import resource, sys
sys.argv = ["train_pose.py"]
from command_line import run_command

def page_faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def main(config):
    import torch
    for times in (32, 8):
        before = page_faults()
        for _ in range(times):
            torch.zeros(10 * 2**20).add_(1.0)
    print(page_faults() - before)

run_command(main, "train_pose", "")
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries decide for themselves")
def test_a_command_keeps_the_memory_that_it_uses_again() -> None:
    """Else the kernel clears every page anew in every training step."""
    faults = {}
    for name, environment in {"kept": {}, "as the user says": {"MALLOC_TRIM_THRESHOLD_": "131072"}}.items():
        inherited = {key: value for key, value in os.environ.items() if key not in MALLOC_SETTINGS}
        finished = subprocess.run(
            [sys.executable, "-c", ASKS_FOR_THE_SAME_MEMORY],
            env={**inherited, "PYTHONPATH": f"{ROOT}:{ROOT / 'tools'}", **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        faults[name] = int(finished.stdout)
    assert faults["as the user says"] >= 8 * 20  # of 2 MiB; of 4 KiB as many as 512 times that
    assert faults["kept"] < faults["as the user says"] / 8


@pytest.mark.parametrize("command", ["train_mesh", "train_pose", "side_by_side"])
def test_what_may_be_null_is_accepted(command: str) -> None:
    """As the comments beside the keys say."""
    schedule = (CONFIGS / f"{'train_pose' if command == 'side_by_side' else command}.yaml").read_text()
    keys = re.findall(r"^  (\w+): .*# .*null: ", schedule.partition("curriculum:")[0], re.MULTILINE)
    assert "muon_learning_rate" in keys
    required = ["data.root=x"] if command == "side_by_side" else []
    for key in keys:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            config = configuration(command, [*required, f"schedule.{key}=null"])
        assert config["schedule"][key] is None


def test_help_offers_what_a_command_takes() -> None:
    for tool, offered, not_offered in (
        (
            "train_mesh.py",
            ["experiment: demo, mlp, motion, motion_xs, scratch\n", "  head:"],
            ["  clips:", "pose_h36m_xs"],
        ),
        ("train_pose.py", ["experiment: pose_3dhp_b", "  clips:"], ["  head:", "demo"]),
        (
            "predict_mesh.py",
            ["body_model: open, smpl, smplx   (smpl, smplx need body_model.path=…)"],
            ["  data:", "  experiment:"],
        ),
        (
            "side_by_side.py",
            [
                "rows: ablation_blocks",
                "  clips:",
                "(motion, motion_plus_procedural, prepared_lifting need data.root=…)",
            ],
            ["  experiment:"],
        ),
        ("prepare_data.py", ["dataset: ???"], ["Choices"]),
        ("eval_mesh.py", ["(3dpw, motion, motion_plus_procedural, prepared_lifting need data.root=…)"], []),
    ):
        shown = run_tool(tool, "--help").stdout
        choices = shown.partition("Keys (key=value)")[0].partition("Choices (group=name):")
        assert all(text in shown for text in offered), tool
        assert not any(text in (choices[2] if choices[1] else "") for text in not_offered), tool


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "override"),
    [(command, f"{group}={name}") for (command, group), names in REFUSED.items() for name in sorted(names)],
)
def test_what_help_does_not_offer_is_refused(command: str, override: str, tmp_path: Path) -> None:
    finished = run_tool(f"{command}.py", override, f"out={tmp_path / 'out'}")
    assert finished.returncode == 2, finished.stderr
    assert "data=" in finished.stderr


def _choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))


@pytest.mark.parametrize(
    "override",
    [
        f"{group}={name}"
        for group in ("backbone", "head", "data", "experiment")
        for name in _choices(group)
        if not name.startswith(("pose_", "prepared_lifting"))  # of train_pose.py; see test_pose_commands.py
    ],
)
def test_every_configuration_composes(override: str) -> None:
    config = composed(
        "train_mesh", *([override, "data.root=somewhere"] if "motion" in override else [override])
    )
    assert config["head"]["dim_representation"] == config["backbone"]["dim_representation"]
