"""Training of the lifting model: its task, and the run from configuration to run folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from core.progress import ProgressDisplay
from core.schedule import CurriculumPhase
from core.ssr_stf.lifting import ConstantPose, LiftingLoss, LiftingModel
from core.ssr_stf.lifting_data import LiftingClips, LiftingSource, LiftingTestSequence
from core.ssr_stf.lifting_evaluation import Lifter, LiftingResult, evaluate_lifting
from core.ssr_stf.lifting_protocols import find_lifting_protocol
from core.training import TrainingTask, checkpoint_of, fit
from core.weights import load_backbone_weights, save_weights

# Batches whose mean pose is the baseline.
_BASELINE_BATCHES = 16


class LiftingTask(TrainingTask):
    """Everything a run needs, built from one plain configuration (configs/train_pose.yaml).

    Args:
        config: the composed configuration as plain dicts and lists.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.loss: LiftingLoss = instantiate(config["loss"])
        with torch.random.fork_rng():
            torch.manual_seed(config["seed"])
            self.backbone_config = dict(config["backbone"])
            backbone_weights = self.backbone_config.pop("weights")
            self.model = LiftingModel(
                backbone=instantiate(self.backbone_config), head=instantiate(config["head"])
            )
        if backbone_weights is not None:
            load_backbone_weights(self.model.backbone, backbone_weights)

        self.source: LiftingSource = instantiate(config["clips"], _convert_="all")
        self.protocol = find_lifting_protocol(self.source.protocol)
        # Where the clips are made on the device, the set is a module and travels with the task.
        self.training_set = self.source.training_set(
            max_clip_frames=self.curriculum.max_frames, seed=config["seed"]
        )
        self.validation_sequences = self.source.test_sequences(config["validation"]["split"])
        self.start_averaging()

    def training_clips(self, step: int, phase: CurriculumPhase) -> LiftingClips:
        """The batch of one step, on the task's device."""
        attached = self._trainer is not None
        clips = self.training_set.clips(
            batch_size=phase.batch_size,
            num_frames=phase.num_frames,
            step=step,
            process=self.global_rank if attached else 0,
            num_processes=self.trainer.world_size if attached else 1,
        )
        return LiftingClips(clips.keypoints.to(self.device), clips.joints.to(self.device))

    def losses_of_step(self, phase: CurriculumPhase) -> tuple[Tensor, dict[str, Tensor]]:
        clips = self.training_clips(self.global_step, phase)
        terms = self.loss.terms(self.model(clips.keypoints), clips.joints)
        return self.loss.total(terms), terms

    def validation_errors(self) -> dict[str, float | int]:
        some = evenly_chosen(self.validation_sequences, self.config["validation"]["max_sequences"])
        result = evaluate_lifting(self.lifter(self.evaluated_model), some, self.protocol)
        return result.total.as_dict(self.protocol)

    def lifter(self, model: nn.Module) -> Lifter:
        """The model as it is evaluated."""
        return Lifter(
            model=model,
            normalisation=self.source.normalisation,
            window_frames=self.window_frames,
            mirror_test=self.config["validation"]["mirror_test"],
            device=self.device,
        )

    def constant_pose(self) -> ConstantPose:
        """The mean of the training targets: the best that a model blind to its input could do, nearly."""
        phase = self.curriculum.phases[-1]
        means = [
            self.training_clips(step, phase).joints.mean(dim=(0, 1)) for step in range(_BASELINE_BATCHES)
        ]
        return ConstantPose(torch.stack(means).mean(dim=0))


def evenly_chosen(sequences: list[LiftingTestSequence], count: int | None) -> list[LiftingTestSequence]:
    """`count` of the sequences, spread evenly; all of them with None."""
    if count is None or len(sequences) <= count:
        return sequences
    return [sequences[int(k * len(sequences) / count)] for k in range(count)]


@dataclass(frozen=True)
class LiftingRun:
    """What a finished run leaves in memory.

    Attributes:
        task: the trained model and all it was trained with.
        metrics: the content of metrics.json.
    """

    task: LiftingTask
    metrics: dict[str, Any]


def run_lifting_training(config: dict[str, Any], display: ProgressDisplay) -> LiftingRun:
    """Trains as configured and leaves weights, configuration and commit in the run folder `config["out"]`.

    Args:
        config: the composed configuration as plain dicts and lists (configs/train_pose.yaml).
        display: shows what happens.

    Raises:
        ValueError: something in the configuration, or a file it names, does not fit; one sentence says what.
    """
    checkpoint_of(config)
    with display.task("Preparing data and model"):
        task = LiftingTask(config)
    if task.training_set.num_too_short:
        display.console.print(
            f"{task.training_set.num_too_short} training sequences are shorter than "
            f"{task.curriculum.max_frames} frames, a clip's length, and are left out.",
            soft_wrap=True,
        )
    fit(task, display)
    save_weights(
        Path(config["out"]) / "model.safetensors",
        task.model,
        backbone=task.backbone_config,
        head=config["head"],
        clip={
            "num_frames": task.window_frames,
            "fps": task.validation_sequences[0].fps,
            "normalisation": task.source.normalisation,
        },
    )
    results: dict[str, LiftingResult] = {}
    for name, model in (("val", task.model), ("baseline_constant_pose", task.constant_pose())):
        with display.task(f"Evaluating {name}", len(task.validation_sequences)) as advance:
            lifter = task.lifter(model.to(task.device))
            results[name] = evaluate_lifting(lifter, task.validation_sequences, task.protocol, advance)
    return LiftingRun(
        task,
        {
            "protocol": task.protocol.name,
            **{name: result.total.as_dict(task.protocol) for name, result in results.items()},
            "actions": results["val"].report()["actions"],
            "num_parameters": sum(parameter.numel() for parameter in task.model.parameters()),
            "seconds": task.seconds,
            "steps": task.global_step,
            "history": task.history,
        },
    )
