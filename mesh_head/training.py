"""Training of the mesh model."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor, nn

from body_models.joint_regressors import JointRegressor
from body_models.parameters import BodyParameters
from body_models.smpl import SmplBody
from core.datasets.mesh_sequences import Gender
from core.keypoints.clip import NormalisedClip
from core.progress import ProgressDisplay
from core.schedule import CurriculumPhase
from core.settings import require_number
from core.training import TrainingTask
from core.weights import ClipFormat
from mesh_head.evaluation import EvaluationResult, MotionEvaluation, evaluate_motion
from mesh_head.losses import MeshLoss, MeshTarget
from mesh_head.mesh_recovery import MeshRecovery
from mesh_head.mixture import build_mixture
from mesh_head.motion_data import ClipSynthesizer, MotionSource
from mesh_head.protocols import find_protocol
from mesh_head.supervision import BodyPoints, SupervisedBody
from mesh_head.weights import find_weights


class MeshRecoveryTask(TrainingTask):
    """Everything a run needs, built from one plain configuration (configs/train_mesh.yaml).

    Args:
        config: the composed configuration as plain dicts and lists.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        self.evaluation: MotionEvaluation = instantiate(config["evaluation"])
        if not isinstance(config["protocol"], str):
            raise ValueError(
                f"protocol={config['protocol']}: training takes one; tools/eval_mesh.py takes several."
            )
        self.protocol = find_protocol(config["protocol"])

        require_number("num_supervised_vertices", config["num_supervised_vertices"], least=1, whole=True)

        begun_from = self.build_model(MeshRecovery, find_weights)
        self.model.head.check_batch_sizes([phase.batch_size for phase in self.curriculum.phases])

        self.body: SmplBody = instantiate(config["body_model"]["body"])
        self.regressor: JointRegressor = instantiate(config["body_model"]["regressor"])
        if "head" in begun_from:
            _require_body_model(str(config["head"]["weights"]), begun_from["head"], self.body.model_name)
        self.synthesizer = ClipSynthesizer(
            body=SupervisedBody(
                body=self.body, regressor=self.regressor, num_vertices=config["num_supervised_vertices"]
            ),
            cameras=instantiate(config["cameras"]),
            noise=instantiate(config["noise"]),
        )
        source: MotionSource = instantiate(config["data"], _convert_="all")
        self.mixture = build_mixture(
            source,
            max_clip_frames=self.curriculum.max_frames,
            augmentation=instantiate(config["augmentation"]),
            synthesizer=self.synthesizer,
            regressor=self.regressor,
            body_model=self.body.model_name,
            load_body=partial(_load_body, config["body_model"]["body"]),
        )
        if "head" not in begun_from:
            self.model.head.set_mean_pose(self.mixture.mean_body_rotmat())
        self.validation_sequences = source.read("val")
        self.start_averaging()

    def training_clips(self, step: int, phase: CurriculumPhase) -> list[tuple[NormalisedClip, MeshTarget]]:
        """The batch of one step: network input and target from every data set that has a share in it."""
        seeds = (self.config["seed"], step)
        return list(self.mixture.draw(phase.batch_size, phase.num_frames, *seeds, device=self.device))

    def losses_of_step(self, phase: CurriculumPhase) -> tuple[Tensor, dict[str, Tensor]]:
        return self.losses_of(self.training_clips(self.global_step, phase), phase.loss_from(self.loss))

    def losses_of(
        self, batch: list[tuple[NormalisedClip, MeshTarget]], loss: MeshLoss
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The total, in which every clip has the same weight, and its terms over the clips that know them."""
        with self.model_precision():
            predicted: BodyParameters = self.model(torch.cat([clip.keypoints for clip, _ in batch]))
        points = self.synthesizer.body(predicted).relative_to_pelvis()
        num_clips = len(points.joints_m)
        totals: list[Tensor] = []
        terms: dict[str, Tensor] = {}
        shares: dict[str, float] = {}
        start = 0
        for clip, target in batch:
            rows = slice(start, start + len(clip.keypoints))
            start, share = rows.stop, len(clip.keypoints) / num_clips
            part = BodyPoints(points.joints_m[rows], points.vertices_m[rows])
            terms_of_part = loss.terms(predicted.select(rows), part, target)
            totals.append(share * loss.total(terms_of_part))
            for name, value in terms_of_part.items():
                terms[name] = terms.get(name, 0.0) + share * value
                shares[name] = shares.get(name, 0.0) + share
        return torch.stack(totals).sum(), {name: value / shares[name] for name, value in terms.items()}

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

    @property
    def num_too_short(self) -> int:
        return self.mixture.num_too_short

    def clip_format(self) -> ClipFormat:
        return {
            "num_frames": self.window_frames,
            "fps": self.mixture.fps,
            "body_model": self.body.model_name,
            "gender": self.config["body_model"]["gender"],
        }

    def final_errors(self, display: ProgressDisplay) -> dict[str, Any]:
        """Errors on the whole validation motion, of the model and of the mean pose that faces the camera."""
        everything = replace(self.evaluation, max_stretches=None)
        mean_pose = self.model.head.mean_pose_model().to(self.device)
        errors = {}
        num_stretches = len(everything.stretches(self.validation_sequences))
        for name, model in (("val", self.model), ("baseline_mean_pose", mean_pose)):
            with display.task(f"Evaluating {name}", num_stretches) as advance:
                errors[name] = self.evaluate(model, everything, advance).total[self.protocol.name].as_dict()
        return {"protocol": self.protocol.name, **errors}


def _load_body(config: dict[str, Any], gender: Gender) -> SmplBody:
    body: SmplBody = instantiate(config, gender=gender)
    return body


def _require_body_model(weights: str, clip: ClipFormat, body_model: str) -> None:
    """ValueError if a head's betas are of another body model. Files that do not say are of the open one."""
    trained = clip.get("body_model", "open")
    if trained != body_model:
        raise ValueError(
            f"head.weights={weights} was trained with the body model {trained}, and its betas mean nothing to "
            f"{body_model}; leave head.weights out."
        )
