"""How a run unfolds: its length in steps or seconds, the learning rate, the curriculum."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar

from core.settings import require_number

Loss = TypeVar("Loss", bound=Any)  # a dataclass of weights


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Length, optimiser settings and learning rate of a run.

    A run ends after `max_steps` or `max_seconds` of training, whichever is first; what share of it is over is
    its progress. With `max_seconds` null a run is a function of its seed alone.

    Attributes:
        max_steps: optimiser steps, or None.
        max_seconds: seconds of training (validation not counted), or None.
        validation_interval: steps between validations, each of which also writes a checkpoint.
        learning_rate: peak, of AdamW.
        muon_learning_rate: peak, of Muon, which then trains the head's matrices and those between the backbone's
            hidden layers (`core.muon`); on the same way down. None: AdamW trains them, too.
        backbone_learning_rate_scale: the backbone's rate over the head's; 0 freezes it, and all of its blocks run
            from the first step, whatever the curriculum says.
        trunk_learning_rate_scale: of the backbone, the rate of what refines its frame context, over the
            context's. A trunk that joins late begins at the peak all the same, and its rate falls over the
            time that is left.
        warmup_steps: linear increase from zero.
        decay: way down from the peak: half a "cosine", or "exponential". The latter is, but for its steps, the
            constant factor per epoch of the literature: 0.99 over 60 epochs ends at 0.547 of the peak.
        final_learning_rate_fraction: of the peak, reached at the end.
        adam_beta2: of AdamW, how far back the average of squared gradients reaches. Below the usual 0.999, which
            reaches back further than the first minutes of a short run.
        weight_decay: of matrices; vectors (biases, norms, scales) have none.
        max_gradient_norm: gradients are scaled down to it; None leaves them as they are.
        weight_average_decay: of an exponential moving average of the weights, which is then what is evaluated
            and saved; None for no average.
    """

    max_steps: int | None
    max_seconds: float | None
    validation_interval: int
    learning_rate: float
    muon_learning_rate: float | None
    backbone_learning_rate_scale: float
    trunk_learning_rate_scale: float
    warmup_steps: int
    decay: Literal["cosine", "exponential"]
    final_learning_rate_fraction: float
    adam_beta2: float
    weight_decay: float
    max_gradient_norm: float | None
    weight_average_decay: float | None

    def __post_init__(self) -> None:
        if self.max_steps is None and self.max_seconds is None:
            raise ValueError("A run needs an end: give schedule.max_steps or schedule.max_seconds.")
        if self.decay not in ("cosine", "exponential"):
            raise ValueError(f"schedule.decay must be cosine or exponential, not {self.decay!r}.")
        above_zero, not_negative = {"above": 0.0}, {"least": 0.0}
        bounds: dict[str, dict[str, Any]] = {
            "max_steps": {"least": 1, "whole": True, "may_be_null": True},
            "max_seconds": {**above_zero, "may_be_null": True},
            "validation_interval": {"least": 1, "whole": True},
            "learning_rate": above_zero,
            "muon_learning_rate": {**above_zero, "may_be_null": True},
            "backbone_learning_rate_scale": not_negative,
            "trunk_learning_rate_scale": not_negative,
            "warmup_steps": {"least": 0, "whole": True},
            "final_learning_rate_fraction": {"most": 1.0}
            | (not_negative if self.decay == "cosine" else above_zero),
            "adam_beta2": {**not_negative, "below": 1.0},
            "weight_decay": not_negative,
            "max_gradient_norm": {**above_zero, "may_be_null": True},
            "weight_average_decay": {**not_negative, "below": 1.0, "may_be_null": True},
        }
        for name, limits in bounds.items():
            require_number(f"schedule.{name}", getattr(self, name), **limits)

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is over, 0 to 1."""
        by_steps = 0.0 if self.max_steps is None else step / self.max_steps
        by_seconds = 0.0 if self.max_seconds is None else seconds / self.max_seconds
        return min(1.0, max(by_steps, by_seconds))

    def learning_rate_at(self, step: int, progress: float, joined_at: float = 0.0) -> float:
        """Warm-up, then down to the final fraction; the way down begins at the progress `joined_at`."""
        progress = max(0.0, (progress - joined_at) / (1 - joined_at))
        warmup = min(1.0, (step + 1) / max(self.warmup_steps, 1))
        floor = self.final_learning_rate_fraction
        if self.decay == "exponential":
            return self.learning_rate * warmup * floor**progress
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.learning_rate * warmup * (floor + (1 - floor) * cosine)


@dataclass(frozen=True, kw_only=True)
class CurriculumPhase:
    """Part of a run.

    Attributes:
        until: progress at which the phase ends.
        num_frames: clip length.
        batch_size: clips per step.
        active_blocks: how many of the backbone's blocks run, from the first; None for all, as all do in the last
            phase.
        loss_scale: factors on weights of the run's loss, by name.
    """

    until: float
    num_frames: int
    batch_size: int
    active_blocks: int | None
    loss_scale: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("num_frames", "batch_size"):
            require_number(f"A curriculum phase's {name}", getattr(self, name), least=1, whole=True)
        require_number("A curriculum phase's until", self.until, above=0.0, most=1.0)
        require_number(
            "A curriculum phase's active_blocks", self.active_blocks, least=0, whole=True, may_be_null=True
        )
        if not isinstance(self.loss_scale, Mapping):
            raise ValueError(
                f"A curriculum phase's loss_scale must be a table, as in {{velocity: 5.0}}, not {self.loss_scale}."
            )
        for name, factor in self.loss_scale.items():
            require_number(f"A curriculum phase's loss_scale.{name}", factor, least=0.0)

    def loss_from(self, loss: Loss) -> Loss:
        """The loss of this phase, from that of the run; ValueError for a weight that it does not have."""
        known = [field.name for field in fields(loss)]
        unknown = [name for name in self.loss_scale if name not in known]
        if unknown:
            raise ValueError(
                f"The curriculum changes the weight of {', '.join(unknown)}, which the loss does not have; "
                f"it has {', '.join(known)}."
            )
        return replace(
            loss, **{name: factor * getattr(loss, name) for name, factor in self.loss_scale.items()}
        )


@dataclass(frozen=True)
class Curriculum:
    """Phases in order; the last one ends at 1.

    Early steps are cheap: with few active blocks a step costs little. Blocks that join later disturb what was
    learned before (at LayerScale 1, by a quarter of the features) for some hundred steps, and repay it.
    """

    phases: tuple[CurriculumPhase, ...]

    def __post_init__(self) -> None:
        ends = [phase.until for phase in self.phases]
        if not ends or ends != sorted(set(ends)) or ends[-1] != 1.0:
            raise ValueError(f"Curriculum phases must end at increasing progress up to 1.0, not at {ends}.")

    @classmethod
    def of(cls, phases: object) -> "Curriculum":
        """From plain values; ValueError names the phase whose keys are not those of a phase."""
        if not isinstance(phases, list | tuple) or not all(isinstance(phase, Mapping) for phase in phases):
            raise ValueError(f"curriculum must be a list of phases (configs/train_*.yaml), not {phases}.")
        built = []
        for number, phase in enumerate(phases):
            try:
                built.append(CurriculumPhase(**phase))
            except TypeError as error:
                raise ValueError(f"Phase {number} of the curriculum cannot be used ({error}).") from error
        return cls(tuple(built))

    @property
    def trunk_joins_at(self) -> float:
        """Progress at which the first phase begins that does more than train the frame context."""
        idle = itertools.takewhile(lambda phase: phase.active_blocks == 0, self.phases[:-1])
        return max((phase.until for phase in idle), default=0.0)

    @property
    def max_frames(self) -> int:
        return max(phase.num_frames for phase in self.phases)

    def at(self, progress: float) -> CurriculumPhase:
        """The phase that a step at this progress belongs to."""
        return next(phase for phase in self.phases if progress < phase.until or phase is self.phases[-1])
