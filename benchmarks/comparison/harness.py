"""Rows of overrides to trained and measured models, every one through the same lifting task."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from benchmarks import CONFIGS
from benchmarks.comparison.costs import (
    MEMORY_IS,
    MULTIPLY_ADDS_ARE,
    Costs,
    count_executed_multiply_adds,
    count_parameters,
    measure_costs,
)
from benchmarks.comparison.peer_backbones import PEERS, PeerBackbone
from core.progress import ProgressDisplay
from core.residual_mlp import ResidualMlp
from core.run_folder import choose_device, refuse_other_settings, write_json
from core.settings import require_number, require_threads
from core.ssr_stf.lifting import LiftingModel
from core.ssr_stf.lifting_data import LiftingTestSequence
from core.ssr_stf.lifting_evaluation import evaluate_lifting
from core.ssr_stf.lifting_training import LiftingTask
from core.training import check_trainable, course_of, without_weights
from core.training_callbacks import has_diverged
from core.training_run import fit, save_trained_model, settings_of
from core.weights import ClipFormat, load_checked, read_weights

_FINISHED = "result.json"
# What `start_from` leaves to each row: the trunk, and a table that only some temporal positions have.
_BEGINS_ANEW = ("backbone.blocks.", "backbone.frame_embedding")
# Not a setting of the run itself: where it is, and what is done around it.
_AROUND = ("out", "resume", "rows", "only", "seeds", "peers", "cost_seconds")
_MATCH_KEYS = ("quantity", "key", "multiple_of")


class ComparedTask(LiftingTask):
    """A lifting task whose seconds may be those of the process's CPU time (`clock` in the configuration).

    What else the machine does then costs no row its budget.
    """

    def build_model(
        self, model: Callable[..., nn.Module], find_weights: Callable[[str], str | Path] = Path
    ) -> dict[str, ClipFormat]:
        """The model as configured, all but its trunk from the weights that `start_from` names."""
        begun_from = super().build_model(model, find_weights)
        path = self.config["start_from"]
        if path is not None:
            anew = {k: v for k, v in self.model.state_dict().items() if k.startswith(_BEGINS_ANEW)}
            trained = {k: v for k, v in read_weights(path)[0].items() if not k.startswith(_BEGINS_ANEW)}
            load_checked(self.model, trained | anew, path)
        return begun_from

    def _clock_s(self) -> float:
        return time.process_time() if self.config["clock"] == "cpu" else time.monotonic()


def compare(config: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Trains all rows with all seeds, as far as the run folder does not hold them yet, and measures their costs.

    Args:
        config: configs/side_by_side.yaml as composed with `overrides`.
        overrides: the command line's.

    Returns:
        The report: by row, errors of every seed, costs and settings; and the conditions.

    Raises:
        ValueError: a configuration, file or folder does not fit; the run folder holds runs of other settings.
    """
    _check_settings(config, overrides)
    torch.set_num_threads(config["threads"])
    display, out = ProgressDisplay(), Path(config["out"])
    configs, left_out, (reference, reference_config) = _row_configs(config, overrides)
    for sentence in left_out:
        display.console.print(sentence, soft_wrap=True)
    runs: dict[str, list[dict[str, Any]]] = {}
    # Seed by seed, so that what an interrupted comparison leaves is one of all rows.
    for seed in config["seeds"]:
        for name, row_config in configs.items():
            display.console.rule(f"{name}, seed {seed}")
            runs.setdefault(name, []).append(
                _finished_run(row_config | {"seed": seed, "out": str(out / name / f"seed_{seed}")}, display)
            )
    costs: dict[str, Costs] = {}
    if config["cost_seconds"] is not None:
        with display.task("Measuring costs", len(configs)) as advance:
            for name, row_config in configs.items():
                costs[name] = _costs(row_config, reference_config, config["cost_seconds"])
                advance()
    return {
        "rows": {
            name: {
                "runs": runs[name],
                "costs": asdict(costs[name]) if name in costs else None,
                "overrides": config["rows"][name],
                "precision": row_config["trainer"]["precision"],
                "backbone": row_config["backbone"],
            }
            for name, row_config in configs.items()
        },
        "left_out": left_out,
        "conditions": {
            "split": config["evaluation_split"],
            "clock": config["clock"],
            "threads": config["threads"],
            "device": str(_device(config)),
            "schedule": config["schedule"],
            "seeds": config["seeds"],
            "costs_relative_to": reference,
            "multiply_adds": MULTIPLY_ADDS_ARE,
            "peak_memory": MEMORY_IS,
            "costs_are_in": "float32",
            "configuration": {key: value for key, value in config.items() if key not in _AROUND},
        },
    }


def with_rows_of(earlier: Path, report: dict[str, Any]) -> dict[str, Any]:
    """The report with the other rows of an earlier one, so that a comparison may be run in parts (`only=[…]`).

    An earlier one of other conditions, or none, leaves the report as it is.
    """
    try:
        before = json.loads(earlier.read_text(encoding="utf-8"))
        if before["conditions"] != json.loads(json.dumps(report["conditions"])):
            return report
        return report | {"rows": before["rows"] | report["rows"]}
    except (OSError, ValueError, KeyError, TypeError):
        return report


def _check_settings(config: dict[str, Any], overrides: list[str]) -> None:
    if config["clock"] not in ("cpu", "wall"):
        raise ValueError(f"clock={config['clock']!r} is not a choice; choose cpu or wall.")
    require_threads("threads", config["threads"])
    require_number("cost_seconds", config["cost_seconds"], least=0.0, may_be_null=True)
    for key in ("seeds", "only"):
        values = config[key]
        if key == "only" and values is None:
            continue
        if not isinstance(values, list) or not values or len(values) != len(set(map(str, values))):
            example = {"seeds": "[0,1,2]", "only": "[ours,residual_mlp]"}[key]
            raise ValueError(f"{key}={values} must be a list, each once, as in {key}={example}.")
    for seed in config["seeds"]:
        require_number("Each of seeds", seed, least=0, below=2**31, whole=True)
    for name, row in config["rows"].items():
        if not isinstance(row, list) or not all(isinstance(override, str) for override in row):
            raise ValueError(
                f"Row {name} is {row}, but a row is a list of overrides, as in \"+rows.mine=['backbone.dim=96']\"."
            )
    if any(override.lstrip("+~").startswith("curriculum") for override in overrides):
        raise ValueError(
            "Rows have curricula of their own (configs/rows/), so curriculum=… would not reach them; set "
            "full_clips.num_frames and full_clips.batch_size, or give a row: "
            "\"+rows.mine=['course=own','curriculum=[…]']\"."
        )
    for part in ("backbone", "head"):
        if config[part]["weights"] is not None:
            raise ValueError(
                f"{part}.weights={config[part]['weights']} would give some rows what others have to learn; "
                "start_from=… begins all rows of ours from a file."
            )
    if any(override.lstrip("+~").startswith("experiment") for override in overrides):
        raise ValueError(
            "Experiments hold for train_pose.py alone, as rows have schedules of their own; give what is wanted of "
            "it key by key (data=…, clips=…, backbone=…, schedule.…)."
        )


def _check_row(name: str, row: dict[str, Any]) -> None:
    courses = [*row["courses"], "own"]
    if row["course"] not in courses:
        raise ValueError(
            f"Row {name}: course={row['course']!r} is not a choice; choose one of {', '.join(courses)}."
        )
    peer, match, others = row["peer"], row["match"], row["other_window_frames"]
    if peer is not None and not (isinstance(peer, dict) and {"name", "depth"} <= peer.keys()):
        raise ValueError(f"Row {name}: a peer needs a name and a depth, {{name: motionagformer, depth: 12}}.")
    if peer is not None and (unknown := peer.keys() - {"name", "depth", "dim", "options"}):
        raise ValueError(
            f"Row {name}: a peer has no {sorted(unknown)[0]}; it has name, depth, dim and options."
        )
    if peer is not None:
        require_number(f"Row {name}: a peer's depth", peer["depth"], least=1, whole=True)
    if peer is not None and peer["name"] not in PEERS:
        raise ValueError(
            f"Row {name}: there is no predecessor {peer['name']!r}; choose one of {', '.join(PEERS)}."
        )
    if match is not None and not (isinstance(match, dict) and set(match) == set(_MATCH_KEYS)):
        raise ValueError(f"Row {name}: match needs the keys {', '.join(_MATCH_KEYS)}.")
    splits = {"evaluation_split": row["evaluation_split"], "validation.split": row["validation"]["split"]}
    for key, split in splits.items():
        if not isinstance(split, str):
            raise ValueError(f"Row {name}: {key}={split} must be the name of one split.")
    if not isinstance(others, list):
        raise ValueError(f"Row {name}: other_window_frames={others} must be a list, as in [9,81].")
    for length in others:
        require_number(f"Row {name}: each of other_window_frames", length, least=1, whole=True)


def _row_configs(
    config: dict[str, Any], overrides: list[str]
) -> tuple[dict[str, dict[str, Any]], list[str], tuple[str, dict[str, Any]]]:
    """The full configuration of every row to run, and a sentence on each that is left out, as a whole or somewhere.

    The third is the name and configuration of what rows are matched to and compared with, whether it is to run or
    not: the first that can.
    """
    rows: dict[str, list[str]] = config["rows"]
    only = config["only"] if config["only"] is not None else list(rows)
    unknown = [name for name in only if name not in rows]
    if unknown:
        raise ValueError(f"There is no row {', '.join(unknown)!r}; the rows are {', '.join(rows)}.")
    configs: dict[str, dict[str, Any]] = {}
    left_out = []
    first: tuple[str, dict[str, Any]] | None = None
    for name in rows:
        if name not in only and first is not None:
            continue
        row = _composed([*_without_keys_of(overrides, rows[name]), *rows[name], "~rows"])
        _check_row(name, row)
        peer = row["peer"]
        if name in only and (kept := _kept_by_row(overrides, rows[name])):
            left_out.append(f"{name} keeps its own {', '.join(kept)}, whatever the command line says.")
        if peer is not None and config["peers"][peer["name"]] is None:
            left_out.append(
                f"{name} is left out: git clone {PEERS[peer['name']].repository} "
                f"and give its folder, peers.{peer['name']}=FOLDER."
            )
            continue
        if peer is not None and row["start_from"] is not None:
            raise ValueError(
                f"start_from={row['start_from']} holds weights of ours, and row {name} is a predecessor; "
                "leave such rows out by only=[…]."
            )
        row = _run_config(row)
        with _row_named(name):
            if row["match"] is not None and first is not None:
                row = _matched(row, first[1])
            _check_trainable(row)
        first = first or (name, row)
        if name in only:
            configs[name] = row
            most = _most_other_frames(row)
            if too_long := [length for length in row["other_window_frames"] if length > most]:
                left_out.append(
                    f"{name} cannot take clips of other_window_frames={too_long}, so it is not evaluated there."
                )
    if not configs or first is None:
        raise ValueError(f"No row is left to train. {' '.join(left_out)}")
    return configs, left_out, first


@contextmanager
def _row_named(name: str) -> Iterator[None]:
    """Whatever is wrong within is said of the row."""
    try:
        yield
    except (ValueError, InstantiationException) as error:
        reason = error.__cause__ if isinstance(error, InstantiationException) else error
        if not isinstance(reason, ValueError | TypeError):  # an argument that there is none of
            raise
        raise ValueError(f"Row {name}: {reason}") from error


def _check_trainable(row: dict[str, Any]) -> None:
    """What training would refuse of one row is said before any has trained; what of all, when the first begins."""
    schedule, curriculum, _ = course_of(row)
    check_trainable(_model(row).backbone, schedule, curriculum, is_trained=False)


def _composed(overrides: list[str]) -> dict[str, Any]:
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = OmegaConf.to_container(
            compose("side_by_side", overrides), resolve=True, throw_on_missing=True
        )
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def _without_keys_of(overrides: list[str], row: list[str]) -> list[str]:
    """The command line without what rows there are, and without what the row itself says otherwise.

    A row with another backbone says otherwise of all of the backbone's keys.
    """
    taken = {"rows", *(override.partition("=")[0] for override in row)}
    kept = []
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if not any(key == other or key.startswith(f"{other}.") for other in taken):
            kept.append(override)
    return kept


def _kept_by_row(overrides: list[str], row: list[str]) -> list[str]:
    """Keys of the command line that do not reach the row. Where its backbone is another, its name says so."""
    said_by_name = {"rows", *(["backbone"] if any(o.startswith("backbone=") for o in row) else [])}
    reached = _without_keys_of(overrides, row)
    keys = [override.partition("=")[0].lstrip("+~") for override in overrides if override not in reached]
    return [key for key in keys if key.split(".")[0] not in said_by_name]


def _run_config(row: dict[str, Any]) -> dict[str, Any]:
    """A row's configuration with its clips and its backbone in their places."""
    row = dict(row)
    if row["course"] != "own":
        row["curriculum"] = row["courses"][row["course"]]
    peer = row["peer"]
    if peer is not None:
        row["backbone"] = {
            "_target_": f"{PeerBackbone.__module__}.{PeerBackbone.__qualname__}",
            "weights": None,
            "peer": peer["name"],
            "repository": row["peers"][peer["name"]],
            "depth": peer["depth"],
            "dim": peer.get("dim", 64),
            "in_channels": 3,
            "num_frames": row["curriculum"][-1]["num_frames"],
            "options": peer.get("options", {}),
        }
    return _with_width(row, "backbone.dim", row["backbone"].get("dim"))


def _with_width(row: dict[str, Any], key: str, width: int | None) -> dict[str, Any]:
    group, _, name = key.partition(".")
    if group not in ("backbone", "head") or (width is not None and name not in row[group]):
        raise ValueError(f"match.key={key!r} is no width; name one, as in match.key=backbone.dim.")
    row = row | {group: row[group] | ({} if width is None else {name: width})}
    if row["peer"] is not None:
        channels = PEERS[row["peer"]["name"]].dim_representation or row["backbone"]["dim"]
        row["head"] = row["head"] | {"dim_representation": channels, "num_tokens": 17}
    return row


def _matched(row: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """The row with the width, of the multiples asked for, that comes nearest to the first row."""
    quantity, key, step = (row["match"][name] for name in _MATCH_KEYS)
    if quantity not in ("parameters", "multiply_adds"):
        raise ValueError(f"match.quantity={quantity!r} is not a choice; choose parameters or multiply_adds.")

    def amount(of: dict[str, Any]) -> int:
        model = _model(of)
        if quantity == "parameters":
            return count_parameters(model)
        return count_executed_multiply_adds(model, _clips(of)[1])

    target = amount(first)

    def excess(multiple: int) -> int:
        return amount(_with_width(row, key, multiple * step)) - target

    high, last = 1, None
    while (found := excess(high)) < 0:
        if found == last:
            raise ValueError(
                f"match.key={key} does not change the {quantity.replace('_', '-')}; name a width."
            )
        high, last = 2 * high, found
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    nearest = min((multiple for multiple in (low, high) if multiple), key=lambda m: abs(excess(m)))
    return _with_width(row, key, nearest * step)


def _model(row: dict[str, Any]) -> LiftingModel:
    backbone, head = (without_weights(row[part]) for part in ("backbone", "head"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LiftingModel(backbone=instantiate(backbone), head=instantiate(head))


def _finished_run(row: dict[str, Any], display: ProgressDisplay) -> dict[str, Any]:
    """The result of one row and seed: read where the run has finished, else trained, from where it stopped."""
    out = Path(row["out"])
    if (out / "config.yaml").is_file():
        refuse_other_settings(out, settings_of(out), row, may_differ=_AROUND)
    if (out / _FINISHED).is_file():
        return _read_result(out / _FINISHED)
    with display.task("Preparing data and model"):
        task = ComparedTask(row | {"resume": (out / "checkpoints" / "last.ckpt").is_file()})
        test_sequences = task.source.test_sequences(row["evaluation_split"])
    fit(
        task,
        display,
        may_differ=_AROUND,
        go_on_by="to go on, give the same command again",
        begin_anew_by=f"delete {out} and give the same command again",
    )
    with display.task("Evaluating"):
        result = {
            "seed": row["seed"],
            "steps": task.global_step,
            "seconds": task.seconds,
            "protocol": task.protocol.describe(),
            "errors": _errors(task, test_sequences),
            "history": task.history,
            "code": f"{', then '.join(map(_in_short, task.code))}, torch {torch.__version__}",
        }
    if has_diverged(task):
        display.say(f"The run diverged: weights or answers are not finite, and no weights are left in {out}.")
    elif row["peer"] is None:  # weights files name no class of a predecessor
        save_trained_model(task)
    write_json(out / _FINISHED, result)
    return result


def _read_result(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it and give the same command again.") from None
    if not isinstance(result, dict):
        raise ValueError(f"{path} is no result of a run; delete it and give the same command again.")
    return result


def _in_short(code: str) -> str:
    """Of `describe_code`."""
    commit, *changes = code.splitlines()
    return f"{commit[:20]}{' with uncommitted changes' if changes else ''}"


def _errors(
    task: ComparedTask, sequences: list[LiftingTestSequence]
) -> dict[str, dict[str, dict[str, float | int]]]:
    """By "model" | "constant_pose", then by clip length that it is run at."""
    row = task.config
    most = _most_other_frames(row)
    lengths = [task.window_frames, *(length for length in row["other_window_frames"] if length <= most)]
    models: dict[str, nn.Module] = {
        "model": task.model,
        "constant_pose": task.constant_pose().to(task.device),
    }
    errors: dict[str, dict[str, dict[str, float | int]]] = {}
    for name, model in models.items():
        errors[name] = {}
        for length in lengths if name == "model" else lengths[:1]:
            lifter = replace(task.lifter(model), window_frames=length)
            result = evaluate_lifting(lifter, sequences, task.protocol)
            errors[name][str(length)] = result.total.as_dict(task.protocol)
    return errors


def _costs(row: dict[str, Any], reference: dict[str, Any], seconds: float) -> Costs:
    return measure_costs(
        _model(row),
        _model(reference),
        clips=_clips(row),
        reference_clips=_clips(reference),
        seconds=seconds,
        device=_device(row),
    )


def _most_other_frames(row: dict[str, Any]) -> float:
    """Of the clips that a row's model takes beside those that it is trained on."""
    if row["peer"] is not None:
        return PEERS[row["peer"]["name"]].most_other_frames
    return 0 if row["backbone"]["_target_"].endswith(f".{ResidualMlp.__name__}") else math.inf


def _clips(row: dict[str, Any]) -> tuple[int, int]:
    """What a row's costs are measured on: its `full_clips`, whatever batches it trains on in the end."""
    return row["full_clips"]["batch_size"], row["curriculum"][-1]["num_frames"]


def _device(config: dict[str, Any]) -> torch.device:
    return choose_device("cpu" if config["trainer"]["accelerator"] == "cpu" else "auto")
