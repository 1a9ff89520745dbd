"""What happens around a run's steps: what is shown, drawn and saved meanwhile, and what ends it early."""

import io
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import TorchCheckpointIO

from core.atomic_write import remove_abandoned, written_whole
from core.charts import save_figure
from core.learning_curves import learning_figure
from core.progress import ProgressDisplay
from core.training import TrainingTask

# To ask a GPU for a number makes it wait.
_READ_LOSS_EVERY_S = 0.2
_DRAW_EVERY_S = 20.0
_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM)


class ShownProgress(Callback):
    """Feeds the progress display from a run."""

    def __init__(self, display: ProgressDisplay) -> None:
        self.display = display
        self.loss = math.nan
        self.loss_read_at = -math.inf

    def on_train_batch_end(
        self, trainer: pl.Trainer, task: pl.LightningModule, outputs: Any, batch: int, batch_idx: int
    ) -> None:
        assert isinstance(task, TrainingTask)
        if (now := time.monotonic()) > self.loss_read_at + _READ_LOSS_EVERY_S:
            self.loss, self.loss_read_at = float(outputs["loss"]), now
        self.display.advance(task.progress, task.seconds, trainer.global_step, self.loss)

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        assert isinstance(task, TrainingTask)
        if task.history:
            self.display.report(task.history[-1])


class LearningCurves(Callback):
    """Keeps the picture of a run's learning up to date, for whoever watches it or interrupts it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.drawn_at = -math.inf

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        assert isinstance(task, TrainingTask)
        if time.monotonic() > self.drawn_at + _DRAW_EVERY_S:
            self._draw(task)
            self.drawn_at = time.monotonic()

    def on_train_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        assert isinstance(task, TrainingTask)
        self._draw(task)

    def _draw(self, task: TrainingTask) -> None:
        if task.history:
            save_figure(learning_figure(task.history, task.schedule, task.curriculum), self.path)


class DivergedError(Exception):
    """Ends a run within `fit`."""


class EndIfDiverged(Callback):
    """Ends a run that has diverged before its weights are written over its last good checkpoint."""

    def on_validation_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        assert isinstance(task, TrainingTask)
        if has_diverged(task):
            raise DivergedError

    def on_validation_end(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        self.on_validation_start(trainer, task)


class InterruptedRunError(BaseException):
    """Ends a run within `fit`; no Exception, lest what it interrupts takes it for one of its own."""


class EndIfInterrupted(Callback):
    """Ends a run by Ctrl-C or SIGTERM: after the step or within the validation that is running, and saved.

    By another one at once, whatever is saved.
    """

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.is_asked = False
        self.replaced: dict[signal.Signals, Any] = {}

    @contextmanager
    def handlers_kept(self) -> Iterator[None]:
        """After this block, signals are answered as before it."""
        if threading.current_thread() is threading.main_thread():  # others cannot
            handlers = {number: signal.getsignal(number) for number in _INTERRUPTIONS}
            # What shells start in the background is deaf to Ctrl-C, and stays so.
            self.replaced = {n: h for n, h in handlers.items() if h not in (None, signal.SIG_IGN)}
        try:
            yield
        finally:
            for number, handler in self.replaced.items():
                signal.signal(number, handler)

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        # Not before: Lightning has just put its own handler in the place of SIGTERM's, and ends without saving.
        for number in self.replaced:
            signal.signal(number, lambda *of_signal: self._ask(task))

    def _ask(self, task: pl.LightningModule) -> None:
        assert isinstance(task, TrainingTask)
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
        if task.is_evaluating:
            raise InterruptedRunError

    def on_train_batch_start(
        self, trainer: pl.Trainer, task: pl.LightningModule, batch: int, batch_idx: int
    ) -> None:
        if self.is_asked:
            raise InterruptedRunError

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        task: pl.LightningModule,
        batch: int,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self.is_asked:
            raise InterruptedRunError

    def on_exception(self, trainer: pl.Trainer, task: pl.LightningModule, exception: BaseException) -> None:
        assert isinstance(task, TrainingTask)
        is_to_be_saved = isinstance(exception, InterruptedRunError) and task.global_step > 0
        if is_to_be_saved and not has_diverged(task):
            trainer.save_checkpoint(self.checkpoint)


class ValidateIfDue(Callback):
    """A run that was interrupted in a validation goes on with it."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    def on_train_start(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        assert isinstance(task, TrainingTask)
        trainer.fit_loop.restarting = False  # an epoch begins, whatever was loaded
        if task.is_validation_due:
            trainer.validating = True
            trainer.fit_loop.epoch_loop.val_loop.run()
            trainer.training = True
            trainer.save_checkpoint(self.checkpoint)


class CheckpointFile(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it.

    Lightning writes into TMPDIR. From another file system, as clusters have it, that is copied over the checkpoint
    before, and a run that dies meanwhile has neither.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        # Not into the file: torch does not say that a disk is full.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        remove_abandoned(Path(path).parent)
        with written_whole(path) as file:
            file.write(content.getbuffer())


def has_diverged(task: TrainingTask) -> bool:
    """Whether some of the weights are not finite, or what the model answered at its last validation."""
    answers_are_finite = all(map(_is_good, task.history[-1:]))
    return not answers_are_finite or not all(p.isfinite().all() for p in task.model.parameters())


def _is_good(entry: Mapping[str, float | int]) -> bool:
    return math.isfinite(entry.get("mpjpe_mm", 0.0))
