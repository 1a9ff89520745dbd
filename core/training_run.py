"""A training run from its configuration to its folder: begun, resumed, interrupted, finished."""

import logging
import pickle
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from core.backbone import Backbone
from core.folders import only_writer
from core.progress import ProgressDisplay
from core.run_folder import (
    describe_code,
    describe_device,
    refuse_other_settings,
    set_aside_previous_run,
    write_text,
)
from core.training import TrainingTask
from core.training_callbacks import (
    CheckpointFile,
    DivergedError,
    EndIfDiverged,
    EndIfInterrupted,
    InterruptedRunError,
    LearningCurves,
    ShownProgress,
    ValidateIfDue,
    has_diverged,
)
from core.weights import save_weights

# Of a run that goes on: how long it lasts, where it is and runs, and what is done with its result.
_MAY_DIFFER_WHEN_RESUMED = (
    *("out", "resume", "renderer", "trainer.accelerator"),
    *("schedule.max_steps", "schedule.max_seconds", "schedule.validation_interval"),
    *("data.root", "clips.data.root", "clips.motion.root"),  # clusters copy data to a folder of each job
)


Task = TypeVar("Task", bound=TrainingTask)


@dataclass(frozen=True)
class FinishedRun(Generic[Task]):
    """What a finished run leaves in memory.

    Attributes:
        task: the trained model and all it was trained with.
        metrics: the content of metrics.json.
    """

    task: Task
    metrics: dict[str, Any]


def run_training(
    build_task: Callable[[dict[str, Any]], Task], config: dict[str, Any], display: ProgressDisplay
) -> FinishedRun[Task]:
    """Trains as configured and leaves weights, configuration and commit in the run folder `config["out"]`.

    Args:
        build_task: a task from its configuration.
        config: the composed configuration as plain dicts and lists (configs/train_*.yaml).
        display: shows what happens.

    Raises:
        ValueError: something in the configuration, or a file it names, does not fit, or the run diverged; one
            sentence says what.
    """
    checkpoint_of(config)
    with display.task("Preparing data and model"):
        task = build_task(config)
    display.say(task.remark)
    if task.num_too_short:
        display.console.print(
            f"{task.num_too_short} training sequences are shorter than {task.curriculum.max_frames} frames, "
            "a clip's length, and are left out.",
            soft_wrap=True,
        )
    fit(task, display)
    if has_diverged(task):
        kept = ""
        if num_saved := _num_steps_saved(checkpoint_of(config)):
            kept = (
                f" Its checkpoint of step {num_saved} stays; resume=true goes on from there, but at the same "
                "rates."
            )
        raise ValueError(
            f"The run diverged: after {task.global_step} steps its weights or its answers are not finite, so none "
            f"are saved; train again at a lower schedule.learning_rate or schedule.muon_learning_rate.{kept}"
        )
    save_trained_model(task)
    return FinishedRun(
        task,
        {
            **task.final_errors(display),
            "num_parameters": sum(parameter.numel() for parameter in task.model.parameters()),
            "seconds": task.seconds,
            "steps": task.global_step,
            "device": describe_device(task.device),
            "torch": torch.__version__,
            "history": task.history,
        },
    )


def save_trained_model(task: TrainingTask) -> None:
    """Leaves the weights as model.safetensors in the run folder."""
    save_weights(
        Path(task.config["out"]) / "model.safetensors",
        task.model,
        backbone=task.backbone_config,
        head=task.head_config,
        clip=task.clip_format(),
    )


def checkpoint_of(config: dict[str, Any]) -> Path:
    """The latest state's path in the run folder; ValueError when it is to be resumed and there is none."""
    checkpoint = Path(config["out"]) / "checkpoints" / "last.ckpt"
    if config["resume"] and not checkpoint.is_file():
        raise ValueError(f"There is no checkpoint {checkpoint} to resume from; leave resume=true out.")
    return checkpoint


def _saved_state(checkpoint: Path, begin_anew_by: str) -> dict[str, Any]:
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError) as error:
        raise ValueError(f"{checkpoint} is damaged and cannot be resumed from; {begin_anew_by}.") from error
    assert isinstance(state, dict)
    return state


def _num_steps_saved(checkpoint: Path) -> int:
    """What a run can go on from; 0 if it has left nothing."""
    if not checkpoint.is_file():
        return 0
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)["global_step"])


def settings_of(out: Path) -> dict[str, Any]:
    """What the run in a folder was configured with; ValueError if the folder does not say."""
    path = out / "config.yaml"
    if not path.is_file():
        raise ValueError(f"There is no {path}, so what the run was configured with is not known.")
    try:
        settings = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, OmegaConfBaseException, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged, so what the run was configured with is not known.") from error
    if not isinstance(settings, dict) or not settings:
        raise ValueError(f"{path} is no configuration, so what the run was configured with is not known.")
    return {str(key): value for key, value in settings.items()}


def fit(
    task: TrainingTask,
    display: ProgressDisplay,
    *,
    may_differ: Collection[str] = _MAY_DIFFER_WHEN_RESUMED,
    go_on_by: str = "to go on, give the same command with resume=true",
    begin_anew_by: str = "begin anew, without resume=true",
) -> None:
    """Trains as `task.config` says, from nothing or from the run folder's checkpoint.

    Leaves config.yaml, commit.txt, learning.png and the checkpoint in the run folder, and in `task.model` the
    trained model (the averaged one where the schedule asks for it), with all of its blocks active, in evaluation
    mode. What an earlier run has left there goes into its sub-folder `previous`.

    A run that diverges ends at the validation that finds it so (`has_diverged`), with its last good checkpoint. One
    that is interrupted saves the steps that it has made; resumed, it is the unbroken run, to the bit.

    Args:
        may_differ: keys of the configuration that a resumed run need not have as before.
        go_on_by: what to tell whoever interrupts it.
        begin_anew_by: what to tell whose checkpoint is damaged.

    Raises:
        ValueError: the run to be resumed was configured otherwise, or is to go back in its curriculum; another
            process trains in the run folder.
        KeyboardInterrupt: with what was reached and saved, and how to go on.
    """
    out, checkpoint = Path(task.config["out"]), checkpoint_of(task.config)
    with only_writer(out):
        _begin(task, checkpoint, display, may_differ=may_differ, begin_anew_by=begin_anew_by)
        _train(task, checkpoint, display, go_on_by=go_on_by)
    display.say(_blocks_that_never_ran(task.model.backbone))
    task.model = task.evaluated_model
    task.averaged_model = None
    task.model.backbone.num_active_blocks = None
    task.eval()


def _begin(
    task: TrainingTask,
    checkpoint: Path,
    display: ProgressDisplay,
    *,
    may_differ: Collection[str],
    begin_anew_by: str,
) -> None:
    """Makes the run folder that of this run, be it a new one or one that goes on."""
    config, out = task.config, Path(task.config["out"])
    if config["resume"]:
        before = settings_of(out)
        refuse_other_settings(out, before, config, may_differ=may_differ)
        roots = [settings.get("data", {}).get("root") for settings in (before, config)]
        if roots[0] != roots[1]:
            display.say(
                f"The run began with the data in {roots[0]}, and goes on with those in {roots[1]}; it is the same "
                "run if they are the same data."
            )
        state = _saved_state(checkpoint, begin_anew_by)
        task.refuse_to_go_back(state)
        task.code = list(state["run_state"].get("code", ()))
    else:
        set_aside_previous_run(out)
    code = describe_code()
    if code not in task.code[-1:]:
        task.code.append(code)
    write_text(out / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    write_text(out / "commit.txt", "\ngone on with:\n".join(task.code))


def _train(task: TrainingTask, checkpoint: Path, display: ProgressDisplay, *, go_on_by: str) -> None:
    """Until the run's end, or until it diverges."""
    interruption = EndIfInterrupted(checkpoint)
    trainer = _trainer(task, checkpoint, display, interruption)
    device = describe_device(trainer.strategy.root_device)
    display.say(f"Training on {device}, {task.config['trainer']['precision']}, torch {torch.__version__}.")
    try:
        with display.training(), interruption.handlers_kept():
            trainer.fit(task, ckpt_path=checkpoint if task.config["resume"] else None, weights_only=True)
    except DivergedError:
        pass  # for the caller to ask
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise ValueError(
            f"Memory ran out after {task.global_step} steps; give clips in smaller batches "
            "(curriculum=[…batch_size…]), or fewer frames."
        ) from error
    # The second is what Lightning makes of the third.
    except (InterruptedRunError, SystemExit, KeyboardInterrupt) as stopped:
        raise KeyboardInterrupt(_what_is_saved(task, checkpoint, go_on_by)) from stopped
    if interruption.is_asked:  # too late to end it before its end
        raise KeyboardInterrupt(_what_is_saved(task, checkpoint, go_on_by))
    task.to(trainer.strategy.root_device)  # the trainer leaves it on the CPU


def _blocks_that_never_ran(backbone: Backbone) -> str | None:
    """A remark on a run too short to reach the last phase of its curriculum."""
    if backbone.num_active_blocks is None or backbone.num_active_blocks >= backbone.num_blocks:
        return None
    return (
        f"The run ended while its curriculum still ran {backbone.num_active_blocks} of {backbone.num_blocks} "
        "blocks: the others are saved as random as they began, and spoil the result. Train longer "
        "(schedule.max_steps, schedule.max_seconds), or give a curriculum with active_blocks=null."
    )


def _what_is_saved(task: TrainingTask, checkpoint: Path, go_on_by: str) -> str:
    """What whoever interrupts a run is told."""
    num_saved = _num_steps_saved(checkpoint)
    num_steps = max(task.global_step, num_saved)  # none yet, before a resumed run has begun
    if num_saved == 0:
        return f"Interrupted after {num_steps} steps, of which none are saved."
    saved = "which are saved" if num_saved == num_steps else f"of which {num_saved} are saved"
    return f"Interrupted after {num_steps} steps, {saved}; {go_on_by}."


def _is_out_of_memory(error: BaseException) -> bool:
    """A GPU's, numpy's, or that of torch on a CPU, which has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def _trainer(
    task: TrainingTask, checkpoint: Path, display: ProgressDisplay, interruption: EndIfInterrupted
) -> pl.Trainer:
    # Lightning's advice on data workers and its hardware notes do not apply: no data is loaded here.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*module\\(s\\) in eval mode.*")  # the averaged weights
    warnings.filterwarnings("ignore", ".*Mismatch dtype between input and weight.*")  # in mixed precision
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")  # Lightning's own use of torch
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*GPU available but not used.*")  # Apple's
    warnings.filterwarnings("ignore", ".*The dirpath has changed.*")  # a run folder may be moved and resumed
    wanted = task.config["trainer"]["accelerator"]
    return pl.Trainer(
        # By name: Lightning's "auto" would take Apple's GPU, which lacks double precision.
        accelerator="cpu" if wanted == "cpu" or not torch.cuda.is_available() else "cuda",
        precision=task.config["trainer"]["precision"],
        devices=1,
        # The task knows its end; Lightning would not begin a run of all its steps that lacks a validation.
        max_epochs=-1,
        max_steps=-1,
        reload_dataloaders_every_n_epochs=1,  # they count the steps to the next validation
        gradient_clip_val=task.schedule.max_gradient_norm,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[CheckpointFile()],
        callbacks=[
            interruption,
            ValidateIfDue(checkpoint),
            ShownProgress(display),
            LearningCurves(Path(task.config["out"]) / "learning.png"),
            EndIfDiverged(),
            # The latest state alone, replaced (never half-written) after every validation.
            ModelCheckpoint(
                dirpath=checkpoint.parent,
                filename=checkpoint.stem,
                every_n_epochs=1,
                save_on_train_epoch_end=True,
                enable_version_counter=False,
            ),
        ],
    )
