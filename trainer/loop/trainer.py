"""The loop that every training method shares: iterations, validation, best model, early stop, going on."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from dataloaders.sets.description import SegmentationData
from models.execution import be_repeatable, compile_forward, tuned_convolutions
from trainer.evaluation.evaluate import evaluate, percent
from trainer.loop import resume
from trainer.loop.assembly import describe, distribute, load_pretrained, make_network, make_optimizer, make_step
from trainer.loop.batches import TrainingBatches
from trainer.loop.board import Board
from trainer.loop.graph import RecordedPass, can_be_recorded
from trainer.loop.guard import StepGuard
from trainer.loop.iteration import begin_iteration, forward_and_backward, mixed_precision
from trainer.loop.resume import Origin
from trainer.loop.tally import Tally
from trainer.methods.shared import SharedStep
from trainer.prediction.protocol import Protocol
from trainer.prediction.whole_image import whole_image_loader
from trainer.subclasses.table import read_subclass_table
from utils.checkpoint import load_weights, save_checkpoint
from utils.config import Config
from utils.distributed import any_process, barrier, is_main
from utils.errors import UsageError
from utils.logger import log, progress
from utils.metrics import Scores
from utils.schedule import Schedule
from utils.stop import Stopped, StopRequest


class Trainer:
    """One training run.

    Parameters
    ----------
    config, data
        What to train, and on what.
    device
        This process's device.
    origin
        A checkpoint. One of ours goes on where it was, unless it is the end of another run; of any other, the
        weights start a new run.
    """

    on_validation: Callable[["Trainer"], None] | None = None
    """Called in the first process, after what a validation found is written."""

    def __init__(self, config: Config, data: SegmentationData, device: torch.device, origin: Origin | None = None):
        self.config, self.data, self.device = config, data, device
        self.schedule, self.n_classes = Schedule.from_config(config), len(data.classes)
        self.iteration, self.epochs_done, self.not_improved, self.finished = 0, 0, 0, False
        self.best: float | None = None  # mean IoU of best_model.pth
        self.tally = Tally(self.n_classes, device, config.trainer.pseudo_label_quality)
        self.inputs = resume.training_inputs(config, data)

        subclasses = read_subclass_table(config, data) if config.has_subclasses else None
        be_repeatable(config.random_seed, deterministic=config.trainer.deterministic)
        self.network = make_network(config, self.n_classes, subclasses.n_subclasses if subclasses else None)
        if origin is None:
            load_pretrained(self.network, config, config.baseline_dir / resume.BEST, data.classes)
        step = make_step(config, self.network, subclasses, data, device)
        self.teacher = step.teacher if isinstance(step, SharedStep) else None
        self.evaluated = self.network if self.teacher is None else self.teacher.network
        self.autocast, self.scaler = mixed_precision(config.trainer.precision, device)
        self.optimizer = make_optimizer(config, self.network)
        if origin is not None:
            self._resume(origin)
        self.guard = StepGuard(self.network, self.optimizer, config.trainer.max_bad_steps)
        if config.trainer.compile:
            compile_forward(step)
        self.step = distribute(step, device)
        self.recorded_pass = RecordedPass(self.network.parameters(), can_be_recorded(config, device))

        self.batches = TrainingBatches(
            config,
            data,
            device,
            iterations=self.schedule.iterations,
            start=self.iteration,
            unsupervised_from=config.model.epoch_start_unsup * self.schedule.iterations_per_epoch,
            subclass_dir=config.subclass_dir if subclasses else None,
            n_subclasses=subclasses.n_subclasses if subclasses else 0,
        )
        self.validation = whole_image_loader(config, data, data.validation if config.trainer.val else (), device)
        self.board = Board(config, data, self.iteration, subclasses)
        self.stop = StopRequest()

    def train(self) -> float | None:
        """Run to the end of the schedule, or until it stops getting better; the best mean IoU, None without one.

        Raises
        ------
        Stopped
            On a request to stop; ``checkpoint.pth`` is where the run goes on.
        """
        schedule = self.schedule
        log.info(describe(self.config, self.data, self.network, schedule, self.device))
        self.board.begin(self.iteration, self.epochs_done)
        self._saved_at = time.monotonic()
        batches = iter(self.batches)
        bar = progress(total=schedule.iterations, initial=self.iteration, desc=self.config.experim_name, unit="it")
        with bar, self.stop:
            if self.finished and self.config.trainer.val:  # it was stopped before its report, which shows predictions
                self._evaluate()
            while self.epochs_done < schedule.epochs and not self.finished:
                epoch, validate = self.epochs_done, self._is_validated(self.epochs_done)
                last = epoch + 1 == schedule.epochs
                pictures = validate and self.board.pictures_due(self.config, schedule, epoch)
                self._train_epoch(epoch, batches, bar, pictures)
                if validate:
                    self._validate(epoch, pictures)
                else:
                    self.tally.end_epoch()
                    if last:
                        self._write(resume.BEST, epoch + 1)
                early = self.not_improved > schedule.early_stop
                self.epochs_done, self.finished = epoch + 1, last or early
                self.tally.begin_epoch()
                if self.finished or self.board.quality_is_due(schedule, epoch):
                    self.board.quality(self.iteration, epoch, self.tally.take_quality())
                if self.finished or self.epochs_done % self.config.trainer.save_period == 0:
                    self._save()
                if early:
                    log.info(f"no better model in {self.not_improved} validations: early stop")
        self.board.close(self.best)
        self.batches.log_bad(at_end=True)
        barrier()
        return self.best

    def _is_validated(self, epoch: int) -> bool:
        """Whether a validation follows on an epoch."""
        due = epoch + 1 == self.schedule.epochs or (epoch + 1) % self.config.trainer.val_per_epochs == 0
        return self.config.trainer.val and due

    def _train_epoch(self, epoch: int, batches: Iterator[dict[str, Tensor]], bar: tqdm, pictures: bool) -> None:
        """The iterations of an epoch that are still to do."""
        self.step.train()
        batch = out = {}
        while self.iteration < (epoch + 1) * self.schedule.iterations_per_epoch:
            batch = next(batches)
            out = self._iterate(batch)
            self.iteration += 1
            bar.update()
            if self.iteration % self.config.trainer.log_per_iter == 0:
                self._log_scalars(bar)
            stop, save = any_process([self.stop.asked, self._save_is_due()])
            if stop or save:
                self._save()
            if stop:
                raise Stopped
        if pictures:
            self.board.keep_unlabelled(batch, out)
        self._report_bad_steps()
        self.batches.log_bad()

    def _iterate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One step of the optimiser; what the training step reports."""
        begin_iteration(self.optimizer, self.schedule, self.config.random_seed, self.iteration)
        self.guard.before_forward()
        with tuned_convolutions():
            out = self.recorded_pass(self._forward_and_backward, batch)
        self.scaler.unscale_(self.optimizer)
        good = self.guard.step(out["total"], self.iteration, self.batches.ids)
        self.scaler.update()
        if self.teacher is not None:
            self.teacher.follow(self.network, self.iteration, good)
        self.tally.update(out, batch["y"], good, self.batches.hidden_target)
        return out

    def _forward_and_backward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return forward_and_backward(self.step, batch, self.config.trainer.accumulate, self.autocast, self.scaler)

    def _log_scalars(self, bar: tqdm) -> None:
        self._report_bad_steps()
        values = self.tally.take_scalars()
        self.board.losses(self.iteration, values, [group["lr"] for group in self.optimizer.param_groups])
        if "total" in values:
            bar.set_postfix({"loss": f"{values['total']:.3f}", "best mIoU": percent(self.best)}, refresh=False)

    def _report_bad_steps(self) -> None:
        try:
            self.guard.report()
        except UsageError:
            self._save()
            raise

    def _save_is_due(self) -> bool:
        minutes = self.config.trainer.save_minutes
        return is_main() and minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def _evaluate(self) -> Scores:
        """Scores on the validation images; the board keeps what is predicted of those that are shown."""
        self.board.scenes.clear()
        self.recorded_pass.give_up()
        result = evaluate(
            Protocol(self.evaluated, self.device, self.config),
            self.validation,
            self.n_classes,
            self.device,
            on_image=self.board.keep_scene,
            stop=self.stop,
            name=f"{self.config.run_dir}: the network of iteration {self.iteration}",
        )
        if any_process([self.stop.asked])[0]:
            self._save()  # of before: a validation that was broken off is done again
            raise Stopped
        return result

    def _validate(self, epoch: int, pictures: bool) -> None:
        started = time.monotonic()
        result = self._evaluate()
        self.tally.end_epoch()
        train_scores = self.tally.training_scores()
        better = self.best is None or result.mean_iou > self.best
        change = "the first" if self.best is None else f"{100 * (result.mean_iou - self.best):+.2f} against the best"
        log.info(
            f"epoch {epoch + 1}/{self.schedule.epochs}, iteration {self.iteration}: val mIoU "
            f"{percent(result.mean_iou)} ({change}), train mIoU {percent(train_scores.mean_iou)}, "
            f"{time.monotonic() - started:.1f} s",
            extra={"good": better},
        )
        self.not_improved = 0 if better else self.not_improved + 1
        if better:
            self.best = result.mean_iou
            self._write(resume.BEST, epoch + 1)
        self.board.validation(self.iteration, epoch, result, train_scores, pictures, *self.tally.take_shares())
        if self.on_validation is not None and is_main():
            self.on_validation(self)

    def _save(self) -> None:
        """Write the checkpoint from which the run goes on exactly; the one before it is kept.

        No random state is in it: what is random follows from seed, iteration and rank.
        """
        self._saved_at = time.monotonic()
        self.board.flush()
        state = {
            "iteration": self.iteration,
            "epochs_done": self.epochs_done,
            "finished": self.finished,
            "not_improved": self.not_improved,
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **self.tally.state(),
            **resume.identity(self.config, self.inputs),
        }
        if self.teacher is not None:
            state["student"] = self.network.state_dict()
        self._write(resume.NEWEST, self.epochs_done, resume=state, keep=self.config.run_dir / resume.PREVIOUS)

    def _write(self, name: str, epoch: int, **more) -> None:
        if is_main():
            save_checkpoint(
                self.config.run_dir / name,
                self.evaluated,
                epoch=epoch,
                best=self.best,
                classes=self.data.classes,
                colours=self.data.palette[: self.n_classes],
                value_range=self.data.value_range,
                trunk=self.config.model.trunk,
                **more,
            )

    def _resume(self, origin: Origin) -> None:
        path, weights, state = origin.path, origin.checkpoint["state_dict"], origin.state
        ended = state is not None and state["finished"] and resume.differences(state, self.config, self.inputs)
        load_weights(self.evaluated, weights, path)
        load_weights(self.network, weights if state is None or ended else state.get("student") or weights, path)
        if state is None or ended:
            why = "holds weights without optimiser and position" if state is None else "is the end of another run"
            log.info(f"{path}: {why}; a new run starts from its weights, at iteration 0 with the whole learning rate")
            return
        resume.check_position(path, state, self.schedule)
        resume.load_state(path, state, self.optimizer, self.scaler, self.tally)
        for name in ("iteration", "epochs_done", "finished", "not_improved"):
            setattr(self, name, state[name])
        self.best = origin.best
        log.info(f"{path}: {'is finished' if self.finished else f'going on at iteration {self.iteration}'}")
        if (self.best is not None or self.finished) and resume.is_lost(self.config.run_dir / resume.BEST):
            self._replace_best_model(path)

    def _replace_best_model(self, checkpoint: Path) -> None:
        """Write ``best_model.pth`` where the best weights are those of ``checkpoint``, or else forget that it was."""
        at_end_of_epoch = self.iteration == self.epochs_done * self.schedule.iterations_per_epoch
        was_chosen = self._is_validated(self.epochs_done - 1) or (self.finished and not self.config.trainer.val)
        model = self.config.run_dir / resume.BEST
        if at_end_of_epoch and was_chosen and self.not_improved == 0:
            log.warning(f"{model}: is gone or damaged; it is written again from {checkpoint}")
            self._write(resume.BEST, self.epochs_done)
        else:
            resume.forget_best_model(model, checkpoint, self.finished)
            self.best, self.not_improved = None, 0
