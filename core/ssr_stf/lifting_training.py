"""Training of the lifting model."""

from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from core.progress import ProgressDisplay
from core.schedule import CurriculumPhase
from core.settings import require_number
from core.ssr_stf.lifting import ConstantPose, LiftingLoss, LiftingModel
from core.ssr_stf.lifting_data import LiftingClips, LiftingSource, LiftingTestSequence
from core.ssr_stf.lifting_evaluation import Lifter, LiftingResult, counted_sequences, evaluate_lifting
from core.ssr_stf.lifting_protocols import find_lifting_protocol
from core.training import TrainingTask
from core.weights import ClipFormat

# Batches whose mean pose is the baseline.
_BASELINE_BATCHES = 16


class LiftingTask(TrainingTask):
    """Everything a run needs, built from one plain configuration (configs/train_pose.yaml).

    Args:
        config: the composed configuration as plain dicts and lists.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        require_number(
            "validation.max_sequences",
            config["validation"]["max_sequences"],
            least=1,
            whole=True,
            may_be_null=True,
        )
        begun_from = self.build_model(LiftingModel)
        self.source: LiftingSource = instantiate(config["clips"], _convert_="all")
        if "head" in begun_from:
            _require_same_task(begun_from["head"], self.source, config["head"]["weights"])
        self.protocol = find_lifting_protocol(self.source.protocol)
        # Where the clips are made on the device, the set is a module and travels with the task.
        self.training_set = self.source.training_set(
            max_clip_frames=self.curriculum.max_frames, seed=config["seed"]
        )
        self.validation_sequences = self.source.test_sequences(config["validation"]["split"])
        counted_sequences(self.validation_sequences, self.protocol)  # refuses a split without any
        self.start_averaging()

    def training_clips(self, step: int, phase: CurriculumPhase) -> LiftingClips:
        """The batch of one step, on the task's device."""
        clips = self.training_set.clips(batch_size=phase.batch_size, num_frames=phase.num_frames, step=step)
        return LiftingClips(clips.keypoints.to(self.device), clips.joints.to(self.device))

    def losses_of_step(self, phase: CurriculumPhase) -> tuple[Tensor, dict[str, Tensor]]:
        clips = self.training_clips(self.global_step, phase)
        loss: LiftingLoss = phase.loss_from(self.loss)
        with self.model_precision():
            joints = self.model(clips.keypoints)
        terms = loss.terms(joints.float(), clips.joints)
        return loss.total(terms), terms

    def validation_errors(self) -> dict[str, float | int]:
        counted = counted_sequences(self.validation_sequences, self.protocol)
        some = evenly_chosen(counted, self.config["validation"]["max_sequences"])
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

    @property
    def num_too_short(self) -> int:
        return self.training_set.num_too_short

    def clip_format(self) -> ClipFormat:
        return {
            "num_frames": self.window_frames,
            "fps": self.training_set.fps,
            "normalisation": self.source.normalisation,
            "unit": self.source.unit,
        }

    def final_errors(self, display: ProgressDisplay) -> dict[str, Any]:
        """Errors on all validation sequences, of the model and of the mean pose."""
        results: dict[str, LiftingResult] = {}
        for name, model in (("val", self.model), ("baseline_constant_pose", self.constant_pose())):
            with display.task(f"Evaluating {name}", len(self.validation_sequences)) as advance:
                lifter = self.lifter(model.to(self.device))
                results[name] = evaluate_lifting(lifter, self.validation_sequences, self.protocol, advance)
        return {
            "protocol": self.protocol.name,
            "definition": self.protocol.describe(),
            **{name: result.total.as_dict(self.protocol) for name, result in results.items()},
            "actions": results["val"].report()["actions"],
        }


def _require_same_task(of_head: ClipFormat, source: LiftingSource, weights: str) -> None:
    """ValueError where a head answers in another unit, or to other input, than that of the clips."""
    theirs = {"normalisation": of_head.get("normalisation"), "unit": of_head.get("unit", "metre")}
    ours = {"normalisation": source.normalisation, "unit": source.unit}
    if theirs != ours:
        raise ValueError(
            f"head.weights={weights} answers in the unit {theirs['unit']} to {theirs['normalisation']} input, and "
            f"these clips are of {ours['normalisation']} input in the unit {ours['unit']}; leave head.weights out, "
            "or train on with clips as its own."
        )


def evenly_chosen(sequences: list[LiftingTestSequence], count: int | None) -> list[LiftingTestSequence]:
    """`count` of the sequences, spread evenly; all of them with None."""
    if count is None or len(sequences) <= count:
        return sequences
    return [sequences[int(k * len(sequences) / count)] for k in range(count)]
