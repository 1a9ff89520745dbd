"""Training of the mesh model: its task, and the run from configuration to run folder."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from body_models.joint_regressors import JointRegressor
from body_models.smpl import SmplBody
from core.progress import ProgressDisplay
from core.schedule import CurriculumPhase
from core.training import TrainingTask, checkpoint_of, fit
from core.weights import load_backbone_weights, save_weights
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
from mesh_head.weights import find_weights


class MeshRecoveryTask(TrainingTask):
    """Everything a run needs, built from one plain configuration (configs/train_mesh.yaml).

    Args:
        config: the composed configuration as plain dicts and lists.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
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
            load_backbone_weights(self.model.backbone, find_weights(backbone_weights))

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
        self.start_averaging()

    def training_clips(self, step: int, phase: CurriculumPhase) -> SyntheticClips:
        """The batch of one step."""
        generator = seeded_generator(self.config["seed"], step, self.global_rank, device=self.device)
        clips = self.library.sample(phase.batch_size, phase.num_frames, generator)
        return self.synthesizer(self.augmentation(clips, generator), generator)

    def losses_of_step(self, phase: CurriculumPhase) -> tuple[Tensor, dict[str, Tensor]]:
        clip, target = self.training_clips(self.global_step, phase).normalised()
        predicted = self.model(clip.keypoints)
        points = self.synthesizer.body(predicted).relative_to_pelvis()
        terms = self.loss.terms(predicted, points, target)
        return self.loss.total(terms), terms

    def validation_errors(self) -> dict[str, float | int]:
        return self.evaluate(self.evaluated_model).total[self.protocol.name].as_dict()

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
    checkpoint_of(config)
    with display.task("Preparing body, motion and model"):
        task = MeshRecoveryTask(config)
    if task.library.num_too_short:
        display.console.print(
            f"{task.library.num_too_short} training sequences are shorter than {task.curriculum.max_frames} "
            "frames, a clip's length, and are left out.",
            soft_wrap=True,
        )
    fit(task, display)
    save_weights(
        Path(config["out"]) / "model.safetensors",
        task.model,
        backbone=task.backbone_config,
        head=config["head"],
        clip={"num_frames": task.window_frames, "fps": task.validation_sequences[0].fps},
    )
    return RunResult(task, _final_metrics(task, display))


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
