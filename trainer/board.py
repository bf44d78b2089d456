"""What a run leaves to look at: TensorBoard scalars and pictures, and ``history.jsonl``."""

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dataloaders.description import Sample, SegmentationData
from utils.checkpoint import write_atomically
from utils.config import Config
from utils.distributed import is_main
from utils.metrics import Scores
from utils.schedule import Schedule

PICTURES = 4
PICTURE_ROUNDS = 20
_GROUPS = {"confident": "pseudo labels", "confident_sub": "pseudo labels", "gate_open": "pseudo labels"}


class Board:
    """Writes a run's curves and pictures; does nothing on other ranks than the first.

    What an interrupted run had written after the place at which it goes on (``iteration``, and the epochs that are
    done with their validations) is dropped.
    """

    def __init__(self, config: Config, data: SegmentationData, iteration: int, epochs_done: int):
        self.classes, self.palette = data.classes, data.palette
        self.history = config.run_dir / "history.jsonl"
        self.writer = None
        # Spread over the list: neighbours are often frames of one film.
        images = data.validation
        self.shown = {images[number * len(images) // PICTURES].id for number in range(PICTURES)}
        self._pictures: list[tuple[Tensor, Tensor, Tensor]] = []
        if not is_main():
            return
        self._truncate_history(iteration, epochs_done)
        if config.trainer.tensorboardX:
            from torch.utils.tensorboard import SummaryWriter  # slow to import: only where it writes

            folder = Path(config.trainer.log_dir) / config.experim_name / "tensorboard"
            self.writer = SummaryWriter(str(folder), purge_step=iteration + 1)

    def _truncate_history(self, iteration: int, epochs_done: int) -> None:
        lines = self.history.read_text().splitlines(keepends=True) if self.history.is_file() else []
        whole = [line for line in lines if line.endswith("\n")]  # the last one may have been cut off
        entries = [(line, json.loads(line)) for line in whole]
        kept = [
            line for line, entry in entries if entry["iteration"] <= iteration and entry.get("epoch", 0) <= epochs_done
        ]
        write_atomically(self.history, lambda file: file.write("".join(kept).encode()))

    def losses(self, iteration: int, values: dict[str, float], rates: list[float]) -> None:
        if not is_main():
            return
        self._write_history({"iteration": iteration, **values})
        if self.writer is None:
            return
        for name, value in values.items():
            self.writer.add_scalar(f"{_GROUPS.get(name, 'loss')}/{name}", value, iteration)
        for name, value in zip(("heads", "backbone"), rates, strict=True):
            self.writer.add_scalar(f"learning rate/{name}", value, iteration)

    def validation(self, iteration: int, epoch: int, result: Scores, train: Scores) -> None:
        if not is_main():
            return
        entry = {"iteration": iteration, "epoch": epoch + 1, "val_mean_iou": result.mean_iou}
        entry |= {"train_mean_iou": train.mean_iou, "val_iou": result.iou.nan_to_num(-1).tolist()}
        self._write_history(entry)
        if self.writer is None:
            return
        self.writer.add_scalar("mIoU/val", result.mean_iou, iteration)
        self.writer.add_scalar("mIoU/train", train.mean_iou, iteration)
        for name, value in zip(self.classes, result.iou.tolist(), strict=True):
            if value == value:
                self.writer.add_scalar(f"val IoU of classes/{name}", value, iteration)
        for number, images in enumerate(self._pictures):
            self.writer.add_image(f"image, target, prediction/{number}", self._strip(*images), iteration)
        self._pictures.clear()
        self.writer.flush()

    def pictures_due(self, config: Config, schedule: Schedule, epoch: int) -> bool:
        """Pictures come with about ``PICTURE_ROUNDS`` of a run's validations, the last one among them."""
        rounds = -(-schedule.epochs // config.trainer.val_per_epochs)
        number = epoch // config.trainer.val_per_epochs
        every = max(1, rounds // PICTURE_ROUNDS)
        return self.writer is not None and (number % every == 0 or epoch + 1 == schedule.epochs)

    def keep_picture(self, sample: Sample, image: Tensor, target: Tensor, prediction: Tensor) -> None:
        if sample.id in self.shown:
            self._pictures.append((image.cpu(), target.cpu(), prediction.cpu()))

    def flush(self) -> None:
        """Bring to disk what the checkpoint that is about to be written will take for granted."""
        if self.history.is_file() and is_main():
            with open(self.history, "a") as file:
                os.fsync(file.fileno())
        if self.writer is not None:
            self.writer.flush()

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def _write_history(self, entry: dict) -> None:
        with open(self.history, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def _strip(self, image: Tensor, target: Tensor, prediction: Tensor) -> Tensor:
        """Image, target and prediction side by side, uint8 (3, H, 3 W)."""
        masks = [torch.from_numpy(self.palette[np.asarray(mask.to(torch.uint8))]).permute(2, 0, 1)
                 for mask in (target, prediction)]  # fmt: skip
        return torch.cat([image, *masks], dim=2)
