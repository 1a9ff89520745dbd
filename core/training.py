"""What is trained: a LightningModule that makes its own batches, along a schedule and a curriculum.

With the tasks that derive from it and the run around them (`core.training_run`, `core.training_callbacks`), this is
where `core` knows Lightning; nothing else in `core` imports it.
"""

import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from core.backbone import Backbone, check_active_blocks
from core.muon import MuonWithAdamW
from core.progress import ProgressDisplay
from core.random_seeds import seed_of
from core.schedule import Curriculum, CurriculumPhase, Schedule
from core.settings import require_choice, require_number
from core.weights import ClipFormat, load_part

_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
_ACCELERATORS = ("auto", "cpu", "gpu")


def course_of(config: Mapping[str, Any]) -> tuple[Schedule, Curriculum, Any]:
    """Schedule, curriculum and loss of a run's configuration; ValueError says what is wrong there or around."""
    _check_trainer(config["trainer"])
    require_number("seed", config["seed"], least=0, below=2**31, whole=True)
    schedule, curriculum = Schedule(**config["schedule"]), Curriculum.of(config["curriculum"])
    loss: Any = instantiate(config["loss"])
    for phase in curriculum.phases:
        if not any(vars(phase.loss_from(loss)).values()):
            raise ValueError("All weights of the loss are 0, so nothing would be learned; set one of them.")
    return schedule, curriculum, loss


def check_trainable(
    backbone: Backbone, schedule: Schedule, curriculum: Curriculum, *, is_trained: bool
) -> None:
    """ValueError if a backbone cannot be trained so, or a setting would do nothing.

    `is_trained`: whether it begins from weights.
    """
    is_frozen = schedule.backbone_learning_rate_scale == 0
    if is_frozen and not is_trained:
        raise ValueError(
            "schedule.backbone_learning_rate_scale=0 leaves the backbone as it begins, and this one begins with "
            "random numbers; give backbone.weights=… or another scale."
        )
    if schedule.trunk_learning_rate_scale != 1 and not backbone.trunk_parameters():
        raise ValueError(
            f"schedule.trunk_learning_rate_scale={schedule.trunk_learning_rate_scale:g} is the rate of blocks that "
            "refine a frame context, and this backbone has none; leave it at 1, or give "
            "backbone.frame_context=mirror_mlp."
        )
    if schedule.trunk_learning_rate_scale == 0 and not is_trained:
        raise ValueError(
            "schedule.trunk_learning_rate_scale=0 leaves the blocks that refine the frame context as they begin, "
            "and these begin with random numbers; give backbone.weights=… or another scale."
        )
    if not is_frozen:  # else all of it runs, whatever the phase
        check_active_blocks(backbone, [phase.active_blocks for phase in curriculum.phases])
    backbone.check_num_frames(sorted({phase.num_frames for phase in curriculum.phases}))


class TrainingTask(pl.LightningModule, ABC):
    """A model with a `backbone` and a `head`, trained along a `Schedule` and a `Curriculum`.

    Batches are functions of (seed, step) alone: a run with the same seed sees the same clips, and a
    resumed one goes on with those it would have seen. A subclass calls `build_model`, then `start_averaging`,
    and says what a step's losses and a validation's errors are.

    Args:
        config: the composed configuration as plain dicts and lists.

    Attributes:
        loss: as configured; phases may change its weights (`CurriculumPhase.loss_from`).
        backbone_config, head_config: how to build them, without the weights that they start from.
        is_evaluating: whether what runs now may be broken off, and nothing has changed.
    """

    # An nn.Module with the parts `backbone` and `head`, which say what Muon trains (`muon_matrices`).
    model: Any

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.config = config
        self.schedule, self.curriculum, self.loss = course_of(config)
        self.window_frames = self.curriculum.phases[-1].num_frames
        self.backbone_config = without_weights(config["backbone"])
        self.head_config = without_weights(config["head"])
        self.averaged_model: Any = None
        # An entry per validation; losses are means since the last.
        self.history: list[dict[str, float | int]] = []
        self._backbone_clip: ClipFormat | None = None  # of the file that it begins from
        # Of every step since the last validation, by name; not every step need know every term.
        self.losses: dict[str, list[Tensor]] = {}
        self.is_evaluating = False
        self.seconds = 0.0
        # That trained it (`describe_code`), in order: of a resumed run maybe several.
        self.code: list[str] = []
        self._last_tick = 0.0

    @abstractmethod
    def losses_of_step(self, phase: CurriculumPhase) -> tuple[Tensor, dict[str, Tensor]]:
        """The total that is minimised, and its terms by name, on the batch of `self.global_step`."""

    @abstractmethod
    def validation_errors(self) -> dict[str, float | int]:
        """Errors of `evaluated_model` by name, on the part of the validation data looked at in training."""

    @property
    @abstractmethod
    def num_too_short(self) -> int:
        """Training sequences that are shorter than the curriculum's longest clip, and left out."""

    @abstractmethod
    def clip_format(self) -> ClipFormat:
        """What the user of the weights must know of the clips that they were trained with."""

    @abstractmethod
    def final_errors(self, display: ProgressDisplay) -> dict[str, Any]:
        """What metrics.json says of the finished model, beside what it says of every run."""

    def build_model(
        self, model: Callable[..., nn.Module], find_weights: Callable[[str], str | Path] = Path
    ) -> dict[str, ClipFormat]:
        """Assigns `model`, its backbone and head built as configured, by the run's seed or from weights files.

        Args:
            model: takes `backbone` and `head`.
            find_weights: the file that `backbone.weights` or `head.weights` names.

        Returns:
            of those that begin from a file, by name, what it says of the clips that it was trained with.

        Raises:
            ValueError: a file does not fit, or a head is to begin from one and its backbone from nothing.
        """
        weights, of_head = (self.config[part]["weights"] for part in ("backbone", "head"))
        if of_head is not None and weights is None:
            raise ValueError(
                f"head.weights={of_head} is of no use without backbone.weights: a head reads the features of the "
                "backbone that it was trained with; give both."
            )
        # No GPU's: the model is built on the CPU, and steps have seeds of their own.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config["seed"])
            self.model = model(backbone=instantiate(self.backbone_config), head=instantiate(self.head_config))
        backbone = self.model.backbone
        check_trainable(backbone, self.schedule, self.curriculum, is_trained=weights is not None)
        begun_from: dict[str, ClipFormat] = {}
        if self.config["resume"]:  # from the checkpoint, which has everything
            return begun_from
        if weights is not None:
            begun_from["backbone"] = load_part(
                backbone, "backbone", find_weights(weights), self.backbone_config
            )
        if of_head is not None:
            begun_from["head"] = load_part(self.model.head, "head", find_weights(of_head), self.head_config)
        self._backbone_clip = begun_from.get("backbone")
        return begun_from

    @property
    def remark(self) -> str | None:
        """What to know of the clips that the backbone was trained with; None if they are like these."""
        if self._backbone_clip is None:
            return None
        before, now = (_input_of(clip) for clip in (self._backbone_clip, self.clip_format()))
        if before == now:
            return None
        frozen = ", and a frozen one does not" if self.is_backbone_frozen else ""
        return (
            f"The backbone was trained on {before}, and these are {now}: it has to learn them anew{frozen}."
        )

    def start_averaging(self) -> None:
        """Begins the exponential moving average of the weights, if the schedule asks for one."""
        if self.schedule.weight_average_decay is not None:
            self.averaged_model = copy.deepcopy(self.model).requires_grad_(False).eval()

    @property
    def evaluated_model(self) -> Any:
        """The averaged weights where the schedule asks for them, else the trained ones."""
        return self.model if self.averaged_model is None else self.averaged_model

    @property
    def is_backbone_frozen(self) -> bool:
        """Whether it does not learn; its head then has the features of all its blocks from the first step."""
        return self.schedule.backbone_learning_rate_scale == 0

    @property
    def progress(self) -> float:
        """Share of the run that is over."""
        return self.schedule.progress(self.global_step, self.seconds)

    def train_dataloader(self) -> DataLoader[int]:
        """The steps to the next validation; their clips are made in `losses_of_step`, on the device."""
        interval = self.schedule.validation_interval
        return DataLoader(_Ticks(interval - self.global_step % interval), batch_size=None)

    def val_dataloader(self) -> DataLoader[int]:
        return DataLoader(_Ticks(1), batch_size=None)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        schedule, backbone = self.schedule, self.model.backbone
        trunk = set(backbone.trunk_parameters())
        parts = (
            (
                [p for p in backbone.parameters() if p not in trunk],
                schedule.backbone_learning_rate_scale,
                0.0,
            ),
            (
                [p for p in backbone.parameters() if p in trunk],
                schedule.backbone_learning_rate_scale * schedule.trunk_learning_rate_scale,
                self.curriculum.trunk_joins_at,
            ),
            (list(self.model.head.parameters()), 1.0, 0.0),
        )
        muon_over_adamw = (schedule.muon_learning_rate or 0.0) / schedule.learning_rate
        for_muon: set[nn.Parameter] = set()
        if muon_over_adamw:
            for_muon = {*backbone.muon_matrices(), *self.model.head.muon_matrices()}
        groups = []
        for parameters, scale, joined_at in parts:
            if scale == 0:  # frozen for good: no gradients to compute, nor to count when they are clipped
                for parameter in parameters:
                    parameter.requires_grad_(False)
            matrices = [p for p in parameters if p.ndim > 1 and p not in for_muon]
            vectors = [p for p in parameters if p.ndim <= 1]
            for members, weight_decay, muon in (
                (matrices, schedule.weight_decay, False),
                (vectors, 0.0, False),
                ([p for p in parameters if p in for_muon], schedule.weight_decay, True),
            ):
                if members:
                    settings = {"weight_decay": weight_decay, "joined_at": joined_at, "muon": muon}
                    scale_here = scale * muon_over_adamw if muon else scale
                    groups.append({"params": members, "scale": scale_here, **settings})
        return MuonWithAdamW(groups, lr=schedule.learning_rate, betas=(0.9, schedule.adam_beta2))

    @property
    def is_validation_due(self) -> bool:
        """Whether the run has trained up to a validation and was interrupted before it was through."""
        is_there = self.global_step % self.schedule.validation_interval == 0 or self.progress >= 1
        return is_there and bool(self.losses)

    def _clock_s(self) -> float:
        """What `schedule.max_seconds` counts."""
        return time.monotonic()

    def on_fit_start(self) -> None:
        # Loaded before the device was known.
        self.losses = {name: [v.to(self.device) for v in values] for name, values in self.losses.items()}

    def on_train_start(self) -> None:
        if self.progress >= 1:
            self.trainer.should_stop = True

    def on_train_epoch_start(self) -> None:
        self._last_tick = self._clock_s()

    def on_train_batch_start(self, batch: int, batch_idx: int) -> None:
        for group in self.trainer.optimizers[0].param_groups:
            learning_rate = self.schedule.learning_rate_at(
                self.global_step, self.progress, group["joined_at"]
            )
            group["lr"] = learning_rate * group["scale"]

    def training_step(self, batch: int, batch_idx: int) -> Tensor:
        phase = self.curriculum.at(self.progress)
        self._activate(None if self.is_backbone_frozen else phase.active_blocks)
        with self._random_of_step(), torch.autocast(self.device.type, enabled=False):
            total, terms = self.losses_of_step(phase)
        # As tensors: to ask a GPU for their values would make every step wait for it.
        for name, value in terms.items():
            self.losses.setdefault(name, []).append(value.detach())
        return total

    def _activate(self, num_blocks: int | None) -> None:
        for model in (self.model, self.evaluated_model):
            model.backbone.num_active_blocks = num_blocks

    @contextmanager
    def _random_of_step(self) -> Iterator[None]:
        """What torch draws by itself, dropout and stochastic depth, as a function of (seed, step) alone."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed_of(self.config["seed"], self.global_step))
            yield

    def model_precision(self) -> AbstractContextManager[Any]:
        """What `losses_of_step` runs the model in, and nothing else: the run's precision.

        Half a precision loses a body's centimetres, so clips, bodies and losses are always in single.
        """
        if self._trainer is None:
            return nullcontext()
        context: AbstractContextManager[Any] = self.trainer.precision_plugin.forward_context()
        return context

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        if self.averaged_model is not None:
            self._average_weights()
        now = self._clock_s()
        self.seconds += now - self._last_tick
        self._last_tick = now
        if self.progress >= 1:
            self.trainer.should_stop = True

    @torch.no_grad()
    def _average_weights(self) -> None:
        # The first averages are short, or the random start would weigh on them for thousands of steps.
        decay = min(
            self.schedule.weight_average_decay or 0.0, (1 + self.global_step) / (10 + self.global_step)
        )
        own, averages = self.model.state_dict(), self.averaged_model.state_dict()
        weighed = [name for name, average in averages.items() if average.is_floating_point()]
        # All at once: one by one, to begin takes longer than to average.
        average_all = get_ema_multi_avg_fn(decay)
        average_all([averages[name] for name in weighed], [own[name] for name in weighed], 0)
        for name in averages.keys() - set(weighed):
            averages[name].copy_(own[name])

    def validation_step(self, batch: int, batch_idx: int) -> None:
        self.is_evaluating = True
        try:
            with torch.autocast(self.device.type, enabled=False):
                errors = self.validation_errors()
        finally:
            self.is_evaluating = False
        mean_losses = {
            f"loss_{name}": float(torch.stack(values).mean()) for name, values in self.losses.items()
        }
        entry = {"step": self.global_step, "seconds": self.seconds, **errors, **mean_losses}
        self.history.append(entry)
        self.losses.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["run_state"] = {
            "seconds": self.seconds,
            "history": self.history,
            "progress": self.progress,
            "code": self.code,
            "losses": {name: torch.stack(values) for name, values in self.losses.items()},
            "active_blocks": self.model.backbone.num_active_blocks,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["run_state"]
        self.seconds, self.history = state["seconds"], state["history"]
        # Older checkpoints are of validations, which leave none.
        self.losses = {name: list(values) for name, values in state.get("losses", {}).items()}
        self._activate(state.get("active_blocks"))
        # Of Lightning's counts the number of steps alone: the rest of an interval is an epoch of its own.
        loop = checkpoint["loops"]["fit_loop"]
        checkpoint["loops"]["fit_loop"] = {key: loop[key] for key in loop if key.endswith(".optim_progress")}

    def refuse_to_go_back(self, checkpoint: dict[str, Any]) -> None:
        """ValueError if the run, by its new length, would be in an earlier phase of its curriculum than it was."""
        state, phases = checkpoint["run_state"], self.curriculum.phases
        before, now = (
            state["progress"],
            self.schedule.progress(checkpoint["global_step"], state["seconds"]),
        )
        if phases.index(self.curriculum.at(now)) < phases.index(self.curriculum.at(before)):
            raise ValueError(
                f"The run was {before:.0%} over, and with its new length it would be {now:.0%}: in an earlier "
                "phase of its curriculum. Give the length that it had, or begin a new run in another folder."
            )


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


def without_weights(part: Mapping[str, Any]) -> dict[str, Any]:
    """How to build a backbone or head: its configuration without the weights that it starts from."""
    return {key: value for key, value in part.items() if key != "weights"}


def _check_trainer(settings: Mapping[str, Any]) -> None:
    unfit = sorted(settings.keys() - {"accelerator", "precision"})
    if unfit:
        raise ValueError(
            f"trainer.{unfit[0]} cannot be set: a run uses one device, and its course is the schedule's."
        )
    require_choice("trainer.accelerator", settings["accelerator"], _ACCELERATORS)
    if settings["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise ValueError("trainer.accelerator=gpu was asked for, but torch sees no GPU; use cpu or auto.")
    require_choice("trainer.precision", settings["precision"], _PRECISIONS)
    on_cpu = settings["accelerator"] == "cpu" or not torch.cuda.is_available()
    if settings["precision"] == "16-mixed" and on_cpu:
        raise ValueError("trainer.precision=16-mixed needs a GPU; on the CPU use bf16-mixed or 32-true.")


def _input_of(clip: ClipFormat) -> str:
    """What a model sees, in words; meshes are always of crops."""
    kind = "the whole picture" if clip.get("normalisation") == "screen" else "the person's crop"
    return f"keypoints in {kind} at {float(clip['fps']):g} frames a second"
