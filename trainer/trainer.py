"""The loop that every training method shares: iterations, validation, best model, early stop, going on."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from dataloaders.description import SegmentationData
from models import build_network
from trainer.baseline import BaselineStep
from trainer.batches import TrainingBatches
from trainer.board import Board
from trainer.evaluation import evaluate, percent, whole_image_loader
from trainer.execution import autocast, choose_precision, compile_forward
from trainer.subclass_table import SubclassTable, read_subclass_table
from trainer.usrn import USRNStep
from utils.checkpoint import load_checkpoint, load_weights, save_checkpoint
from utils.config import BASELINE, Config
from utils.distributed import all_mean, all_sum, barrier, is_main, rank, synchronise_batch_norm
from utils.errors import UsageError
from utils.logger import log, progress
from utils.metrics import ConfusionMatrix, Scores, scores
from utils.schedule import Schedule, poly_factor

PRETRAINED = Path(__file__).parent.parent / "pretrained"
BACKBONE_LR = 0.1


class Trainer:
    """One training run.

    Parameters
    ----------
    config, data
        What to train, and on what.
    device
        This process's device.
    resume
        A checkpoint. One of ours that is not finished goes on where it was; of any other, the weights start a
        new run.
    """

    def __init__(self, config: Config, data: SegmentationData, device: torch.device, resume: Path | None = None):
        self.config, self.data, self.device = config, data, device
        self.schedule = Schedule.from_config(config)
        self.n_classes = len(data.classes)
        self.iteration, self.best, self.not_improved = 0, -1.0, 0
        self.running: dict[str, list[Tensor]] = {}  # scalars since the last log line, still on the device

        subclasses = None if config.name == BASELINE else read_subclass_table(config, data)
        torch.manual_seed(config.random_seed)
        self.network = self._network(subclasses, pretrained=config.pretrained and resume is None).to(device)
        step = self._step(subclasses).to(device)
        if device.type == "cuda":
            step = step.to(memory_format=torch.channels_last)
        precision = choose_precision(config.trainer.precision, device)
        self.autocast = autocast(precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.optimizer = self._optimizer()
        if resume is not None:
            self._resume(resume)
        if config.trainer.compile:
            compile_forward(step)
        self.step = _distribute(step, device)

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
        self.validation = whole_image_loader(config, data, data.validation, device)
        self.board = Board(config, data, self.iteration)

    def train(self) -> float:
        """Run to the end of the schedule, or until it stops getting better; the best mean IoU."""
        schedule, settings = self.schedule, self.config.trainer
        self._describe()
        batches = iter(self.batches)
        bar = progress(total=schedule.iterations, initial=self.iteration, desc=self.config.experim_name, unit="it")
        with bar:
            for epoch in range(self.iteration // schedule.iterations_per_epoch, schedule.epochs):
                train_scores = self._train_epoch(batches, bar)
                last = epoch + 1 == schedule.epochs
                if settings.val and (last or (epoch + 1) % settings.val_per_epochs == 0):
                    self._validate(epoch, train_scores)
                stop = self.not_improved >= schedule.early_stop
                if last or stop or (epoch + 1) % settings.save_period == 0:
                    self._save("checkpoint.pth", epoch, finished=last or stop)
                if stop:
                    log.info(f"no better model in {self.not_improved} validations: early stop")
                    break
        self.board.close()
        if not settings.val:
            self._save("best_model.pth", epoch, finished=True)
        barrier()
        return self.best

    def _train_epoch(self, batches: Iterator[dict[str, Tensor]], bar: tqdm) -> Scores:
        confusion = ConfusionMatrix(self.n_classes, self.device)
        self.step.train()
        for _ in range(self.schedule.iterations_per_epoch):
            batch = next(batches)
            out = self._iterate(batch)
            confusion.update(out.pop("prediction"), batch["y"])
            for name, value in out.items():
                self.running.setdefault(name, []).append(value)
            self.iteration += 1
            bar.update()
            if self.iteration % self.config.trainer.log_per_iter == 0:
                self._log_scalars(bar)
        return scores(all_sum(confusion.counts))

    def _iterate(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """One step of the optimiser; what the training step reports, without graphs."""
        factor = poly_factor(self.iteration, self.schedule.iterations)
        for group in self.optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
        # Dropout follows from seed, rank and iteration, so that a run can go on from any iteration.
        torch.manual_seed((self.config.random_seed * 1_000_003 + self.iteration) * 1_009 + rank())
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast:
            out = self.step(**batch)
        self.scaler.scale(out["total"]).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return out | {"total": out["total"].detach()}

    def _log_scalars(self, bar: tqdm) -> None:
        means = all_mean(torch.stack([torch.stack(values).mean() for values in self.running.values()]))
        values = dict(zip(self.running, means.tolist(), strict=True))
        self.running.clear()
        self.board.losses(self.iteration, values, [group["lr"] for group in self.optimizer.param_groups])
        bar.set_postfix({"loss": f"{values['total']:.3f}", "best mIoU": percent(max(self.best, 0))}, refresh=False)

    def _validate(self, epoch: int, train_scores: Scores) -> None:
        started = time.monotonic()
        pictures = self.board.pictures_due(self.config, self.schedule, epoch)
        result = evaluate(
            self.network,
            self.validation,
            self.n_classes,
            self.device,
            autocast=self.autocast,
            on_image=self.board.keep_picture if pictures else None,
        )
        better = result.mean_iou > self.best
        change = f"{100 * (result.mean_iou - self.best):+.2f} against the best" if self.best >= 0 else "the first"
        log.info(
            f"epoch {epoch + 1}/{self.schedule.epochs}, iteration {self.iteration}: val mIoU "
            f"{percent(result.mean_iou)} ({change}), train mIoU {percent(train_scores.mean_iou)}, "
            f"{time.monotonic() - started:.1f} s"
        )
        self.not_improved = 0 if better else self.not_improved + 1
        if better:
            self.best = result.mean_iou
            self._save("best_model.pth", epoch)
        self.board.validation(self.iteration, epoch, result, train_scores)

    def _save(self, name: str, epoch: int, *, finished: bool | None = None) -> None:
        """Write a checkpoint; with ``finished`` given, one from which the run can go on."""
        if not is_main():
            return
        resume = None
        if finished is not None:
            resume = {
                "iteration": self.iteration,
                "not_improved": self.not_improved,
                "finished": finished,
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "config": json.dumps(self.config.model_dump()),
            }
        path = self.config.run_dir / name
        save_checkpoint(path, self.network, epoch=epoch + 1, best=self.best, resume=resume)

    def _resume(self, path: Path) -> None:
        checkpoint = load_checkpoint(path)
        load_weights(self.network, checkpoint["state_dict"], path)
        state = checkpoint.get("resume")
        if state is None:
            log.info(f"{path}: starting a new run from these weights")
            return
        if state["iteration"] > self.schedule.iterations:
            raise UsageError(f"{path}: is at iteration {state['iteration']}, beyond the {self.schedule.iterations} of "
                             "this configuration.")  # fmt: skip
        self.optimizer.load_state_dict(state["optimizer"])
        if state.get("scaler"):
            self.scaler.load_state_dict(state["scaler"])
        self.iteration, self.not_improved = state["iteration"], state["not_improved"]
        self.best = float(checkpoint["monitor_best"])
        log.info(f"{path}: going on at iteration {self.iteration}")

    def _network(self, subclasses: SubclassTable | None, *, pretrained: bool) -> nn.Module:
        model = self.config.model
        network = build_network(
            self.config.name,
            self.n_classes,
            subclasses.n_subclasses if subclasses else None,
            layers=model.layers,
            out_dim=model.out_dim,
            base_width=model.base_width,
        )
        if pretrained:
            from models.imagenet import imagenet_weights, load_imagenet_weights

            load_imagenet_weights(network, imagenet_weights(model.layers, PRETRAINED))
        return network

    def _step(self, subclasses: SubclassTable | None) -> nn.Module:
        model = self.config.model
        if subclasses is None:
            return BaselineStep(self.network, supervised_w=model.supervised_w)
        return USRNStep(
            self.network,
            subclasses.class_of_subclass,
            pos_thresh_value=model.pos_thresh_value,
            entropy_gate=model.entropy_gate,
            downsample=model.downsample,
            supervised_w=model.supervised_w,
            loss_weight_subcls=model.loss_weight_subcls,
            loss_weight_unsup=model.loss_weight_unsup,
        )

    def _optimizer(self) -> torch.optim.SGD:
        args = self.config.optimizer.args
        backbone_lr = args.lr * (BACKBONE_LR if self.config.diff_lrs else 1)
        groups = [
            {"params": list(self.network.head_parameters()), "initial_lr": args.lr},
            {"params": list(self.network.backbone_parameters()), "initial_lr": backbone_lr},
        ]
        return torch.optim.SGD(groups, lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay, fused=True)

    def _describe(self) -> None:
        schedule, parameters = self.schedule, sum(p.numel() for p in self.network.parameters())
        log.info(
            f"{self.config.experim_name}: {len(self.data.labelled)} labelled, {len(self.data.unlabelled)} unlabelled, "
            f"{len(self.data.validation)} validation images; {parameters / 1e6:.1f} M parameters; {schedule.epochs} "
            f"epochs of {schedule.iterations_per_epoch} iterations on {self.device.type}"
        )


def _distribute(step: nn.Module, device: torch.device) -> nn.Module:
    if not torch.distributed.is_initialized():
        return step
    synchronised = synchronise_batch_norm(step, device)
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(synchronised, device_ids=ids, broadcast_buffers=False)
