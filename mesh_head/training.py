"""Training: the LightningModule that makes its own batches, and the run from configuration to run folder.

On the model's side, Lightning and Hydra are imported here alone.
"""

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from body_models.joint_regressors import JointRegressor
from body_models.smpl import SmplBody
from core.progress import ProgressDisplay
from core.run_folder import describe_code, write_text
from core.schedule import Curriculum, CurriculumPhase, Schedule
from mesh_head.evaluation import EvaluationResult, MotionEvaluation, evaluate_motion
from mesh_head.losses import MeshLoss
from mesh_head.mesh_recovery import MeshRecovery
from mesh_head.motion_data import (
    ClipSynthesizer,
    MotionAugmentation,
    MotionLibrary,
    MotionSource,
    SyntheticClips,
    seeded_generator,
)
from mesh_head.protocols import find_protocol
from mesh_head.supervision import SupervisedBody
from mesh_head.weights import load_backbone_weights, save_weights


class MeshRecoveryTask(pl.LightningModule):
    """Everything a run needs, built from one plain configuration (configs/train_mesh.yaml).

    Batches are functions of (seed, step, process) alone: a run with the same seed sees the same clips, and a
    resumed one goes on with those it would have seen.

    Args:
        config: the composed configuration as plain dicts and lists.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.config = config
        self.schedule = Schedule(**config["schedule"])
        self.curriculum = Curriculum(tuple(CurriculumPhase(**phase) for phase in config["curriculum"]))
        self.window_frames = self.curriculum.phases[-1].num_frames
        self.loss: MeshLoss = instantiate(config["loss"])
        self.augmentation: MotionAugmentation = instantiate(config["augmentation"])
        self.evaluation: MotionEvaluation = instantiate(config["evaluation"])
        self.protocol = find_protocol(config["protocol"])

        with torch.random.fork_rng():
            torch.manual_seed(config["seed"])
            self.backbone_config = dict(config["backbone"])
            backbone_weights = self.backbone_config.pop("weights")
            self.model = MeshRecovery(
                backbone=instantiate(self.backbone_config), head=instantiate(config["head"])
            )
        if backbone_weights is not None:
            load_backbone_weights(self.model.backbone, backbone_weights)

        self.body: SmplBody = instantiate(config["body_model"]["body"])
        self.regressor: JointRegressor = instantiate(config["body_model"]["regressor"])
        self.synthesizer = ClipSynthesizer(
            body=SupervisedBody(
                body=self.body, regressor=self.regressor, num_vertices=config["num_supervised_vertices"]
            ),
            cameras=instantiate(config["cameras"]),
            noise=instantiate(config["noise"]),
        )
        source: MotionSource = instantiate(config["data"], _convert_="all")
        self.library = MotionLibrary(source.read("train"), max_clip_frames=self.curriculum.max_frames)
        self.model.head.set_mean_pose(self.library.mean_body_rotmat())
        self.validation_sequences = source.read("val")
        self.history: list[
            dict[str, float | int]
        ] = []  # an entry per validation; losses are means since the last
        self.losses: list[dict[str, float]] = []
        self.seconds = 0.0
        self._last_tick = 0.0

    @property
    def progress(self) -> float:
        """Share of the run that is over."""
        return self.schedule.progress(self.global_step, self.seconds)

    def train_dataloader(self) -> DataLoader[int]:
        """One validation interval of steps; their clips are made in `training_clips`, on the device."""
        return DataLoader(_Ticks(self.schedule.validation_interval), batch_size=None)

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader(_Ticks(1), batch_size=None)

    def training_clips(self, step: int, phase: CurriculumPhase) -> SyntheticClips:
        """The batch of one step."""
        generator = seeded_generator(self.config["seed"], step, self.global_rank, device=self.device)
        clips = self.library.sample(phase.batch_size, phase.num_frames, generator)
        return self.synthesizer(self.augmentation(clips, generator), generator)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        groups = []
        for part, scale in (
            (self.model.backbone, self.schedule.backbone_learning_rate_scale),
            (self.model.head, 1.0),
        ):
            for decays in (True, False):
                parameters = [p for p in part.parameters() if (p.ndim > 1) == decays]
                weight_decay = self.schedule.weight_decay if decays else 0.0
                groups.append({"params": parameters, "weight_decay": weight_decay, "scale": scale})
        # β₂ below the usual 0.999: its average reaches back further than the first minutes of a short run.
        return torch.optim.AdamW(groups, lr=self.schedule.learning_rate, betas=(0.9, 0.99), fused=True)

    def on_train_epoch_start(self) -> None:
        self._last_tick = time.monotonic()

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        learning_rate = self.schedule.learning_rate_at(self.global_step, self.progress)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = learning_rate * group["scale"]

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        phase = self.curriculum.at(self.progress)
        self.model.backbone.num_active_blocks = phase.active_blocks
        clip, target = self.training_clips(self.global_step, phase).normalised()
        predicted = self.model(clip.keypoints)
        points = self.synthesizer.body(predicted).relative_to_pelvis()
        terms = self.loss.terms(predicted, points, target)
        total = self.loss.total(terms)
        self.losses.append({name: float(value.detach()) for name, value in terms.items()})
        return total

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        now = time.monotonic()
        self.seconds += now - self._last_tick
        self._last_tick = now
        if self.progress >= 1:
            self.trainer.should_stop = True

    def validation_step(self, batch: int, batch_idx: int) -> None:
        errors = self.evaluate(self.model).total[self.protocol.name]
        names = self.losses[0] if self.losses else {}
        mean_losses = {
            f"loss_{name}": sum(losses[name] for losses in self.losses) / len(self.losses) for name in names
        }
        entry = {"step": self.global_step, "seconds": self.seconds, **errors.as_dict(), **mean_losses}
        self.history.append(entry)
        self.losses.clear()

    def evaluate(
        self,
        model: nn.Module,
        evaluation: MotionEvaluation | None = None,
        on_stretch_done: Callable[[], None] = lambda: None,
    ) -> EvaluationResult:
        """Errors on the validation motion, by default on the part of it that is looked at during training."""
        return evaluate_motion(
            model,
            self.validation_sequences,
            evaluation=evaluation or self.evaluation,
            synthesizer=self.synthesizer,
            body=self.body,
            regressor=self.regressor,
            protocols=[self.protocol],
            window_frames=self.window_frames,
            device=self.device,
            on_stretch_done=on_stretch_done,
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["run_state"] = {"seconds": self.seconds, "history": self.history}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.seconds = checkpoint["run_state"]["seconds"]
        self.history = checkpoint["run_state"]["history"]


class _Ticks(Dataset[int]):
    """Counts; the batches themselves are made by the task."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        if index >= self.count:
            raise IndexError(index)
        return index


class _Display(Callback):
    """Feeds the progress display from a run."""

    def __init__(self, display: ProgressDisplay) -> None:
        self.display = display

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: int, batch_idx: int
    ) -> None:
        assert isinstance(task, MeshRecoveryTask)
        self.display.advance(task.progress, task.seconds, trainer.global_step, float(outputs["loss"]))

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        assert isinstance(task, MeshRecoveryTask)
        if task.history:
            self.display.report(task.history[-1])


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves in memory.

    Attributes:
        task: the trained model and all it was trained with.
        metrics: the content of metrics.json.
    """

    task: MeshRecoveryTask
    metrics: dict[str, Any]


def run_training(config: dict[str, Any], display: ProgressDisplay) -> RunResult:
    """Trains as configured and leaves weights, configuration and commit in the run folder `config["out"]`.

    Args:
        config: the composed configuration as plain dicts and lists (configs/train_mesh.yaml).
        display: shows what happens.

    Raises:
        ValueError: something in the configuration, or a file it names, does not fit; one sentence says what.
    """
    out = Path(config["out"])
    checkpoint = out / "checkpoints" / "last.ckpt"
    if config["resume"] and not checkpoint.is_file():
        raise ValueError(f"There is no checkpoint {checkpoint} to resume from; leave resume=true out.")
    with display.task("Preparing body, motion and model"):
        task = MeshRecoveryTask(config)
    if task.library.num_too_short:
        display.console.print(
            f"{task.library.num_too_short} training sequences are shorter than {task.curriculum.max_frames} "
            "frames, a clip's length, and are left out.",
            soft_wrap=True,
        )
    if not config["resume"]:
        checkpoint.unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    write_text(out / "commit.txt", describe_code())

    trainer = _trainer(task, checkpoint, display)
    with display.training():
        trainer.fit(task, ckpt_path=checkpoint if config["resume"] else None, weights_only=True)
    task.model.backbone.num_active_blocks = None
    task.eval()
    save_weights(
        out / "model.safetensors",
        task.model,
        backbone=task.backbone_config,
        head=config["head"],
        clip={"num_frames": task.window_frames, "fps": task.validation_sequences[0].fps},
    )
    return RunResult(task, _final_metrics(task, display))


def _trainer(task: MeshRecoveryTask, checkpoint: Path, display: ProgressDisplay) -> pl.Trainer:
    # Lightning's advice on data workers and its hardware notes do not apply: no data is loaded here.
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")  # Lightning's own use of torch
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    return pl.Trainer(
        **task.config["trainer"],
        max_epochs=-1,
        max_steps=-1 if task.schedule.max_steps is None else task.schedule.max_steps,
        gradient_clip_val=task.schedule.max_gradient_norm,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[
            _Display(display),
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


def _final_metrics(task: MeshRecoveryTask, display: ProgressDisplay) -> dict[str, Any]:
    """Errors on the whole validation motion, of the model and of the mean pose that faces the camera."""
    everything = MotionEvaluation(
        stretch_frames=task.evaluation.stretch_frames, max_stretches=None, seed=task.evaluation.seed
    )
    mean_pose = task.model.head.mean_pose_model()
    errors = {}
    num_stretches = len(everything.stretches(task.validation_sequences))
    for name, model in (("val", task.model), ("baseline_mean_pose", mean_pose.to(task.device))):
        with display.task(f"Evaluating {name}", num_stretches) as advance:
            errors[name] = task.evaluate(model, everything, advance).total[task.protocol.name].as_dict()
    return {
        "protocol": task.protocol.name,
        **errors,
        "num_parameters": sum(parameter.numel() for parameter in task.model.parameters()),
        "seconds": task.seconds,
        "steps": task.global_step,
        "history": task.history,
    }
