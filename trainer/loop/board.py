"""What a run leaves to look at: TensorBoard scalars and pictures, and ``history.jsonl``."""

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dataloaders.photometry import denormalise
from dataloaders.sets.description import Sample, SegmentationData
from trainer.evaluation.label_quality import Quality
from trainer.evaluation.report.pictures import Scene
from trainer.evaluation.run_json import read_history
from trainer.subclasses.table import SubclassTable
from utils.config import Config, flat_settings
from utils.distributed import is_main
from utils.errors import system_errors
from utils.files import write_whole
from utils.metrics import Scores
from utils.schedule import Schedule

PICTURES = 4
PICTURE_ROUNDS = 20
QUALITY_ROUNDS = 40
GAP = 4
VALIDATION_PICTURE = "validation: image, target, prediction"
UNLABELLED_PICTURE = "unlabelled: weak view, strong view, class label, parent of subclass, gate, pseudo label"
SHARE_GROUPS = {
    "label_shares": "class shares of labels",
    "pseudo_label_shares": "class shares of pseudo labels",
}
# What a training step reports, as TensorBoard shows it: group/name.
TAGS = {
    "total": "loss/total",
    "Ls": "loss/Ls (labelled, classes)",
    "Ls_sub": "loss/Ls_sub (labelled, subclasses)",
    "Lu_reg": "loss/Lu_reg (unlabelled, classes)",
    "Lu_sub": "loss/Lu_sub (unlabelled, subclasses)",
    "confident": "pseudo labels/used, classes",
    "mask_ratio": "pseudo labels/used, of pixels not ignored",
    "confident_sub": "pseudo labels/used, subclasses",
    "gate_open": "pseudo labels/left alone by the gate",
}


class Board:
    """Writes a run's curves and pictures; does nothing on other ranks than the first.

    What an interrupted run had written after the place at which it goes on is dropped: of TensorBoard's curves here,
    after ``iteration``, of the history by ``begin``.
    """

    def __init__(
        self,
        config: Config,
        data: SegmentationData,
        iteration: int,
        subclasses: SubclassTable | None = None,
    ):
        self.classes, self.palette, self.subclasses = data.classes, data.palette, subclasses
        self.settings = flat_settings(config)
        self.history = config.run_dir / "history.jsonl"
        self.curves = Path(config.trainer.log_dir) / config.experim_name / "tensorboard"
        self.writer = None
        # Spread over the list: neighbours are often frames of one film.
        images = data.validation if config.trainer.val else ()
        self.shown = {images[number * len(images) // PICTURES].id for number in range(PICTURES) if images}
        self.scenes: list[Scene] = []
        """Of the last validation."""
        self._pictures: list[tuple[str, Tensor]] = []  # tag, uint8 (3, H, W)
        if not is_main():
            return
        if config.trainer.tensorboardX:
            from torch.utils.tensorboard import SummaryWriter  # slow to import: only where it writes

            threading.excepthook = _leave_to_the_caller
            with system_errors(self.curves):
                self.writer = SummaryWriter(str(self.curves), purge_step=iteration + 1)

    def begin(self, iteration: int, epochs_done: int) -> None:
        """Drop from the history what is later than this iteration, or than the validations of so many epochs."""
        if not is_main():
            return
        kept = [
            json.dumps(entry) + "\n"
            for entry in read_history(self.history)
            if entry["iteration"] <= iteration and entry.get("epoch", 0) <= epochs_done
        ]
        write_whole(self.history, "".join(kept))

    def losses(self, iteration: int, values: dict[str, float], rates: list[float]) -> None:
        """Scalars of an iteration, by the names of the training step, and the learning rates."""
        if not is_main():
            return
        rates = dict(zip(("heads", "backbone"), rates, strict=True))
        self._write_history({"iteration": iteration, **values, "lr": rates})
        if self.writer is None:
            return
        with system_errors(self.curves):
            for name, value in values.items():
                self.writer.add_scalar(TAGS.get(name, f"loss/{name}"), value, iteration)
            for name, value in rates.items():
                self.writer.add_scalar(f"learning rate/{name}", value, iteration)

    def validation(
        self,
        iteration: int,
        epoch: int,
        result: Scores,
        train: Scores,
        pictures: bool,
        label_shares: list[float] | None,
        pseudo_label_shares: list[float] | None,
    ) -> None:
        """Scores of a validation; shares of every class among labels and used pseudo labels since the last one.

        ``pictures``: whether TensorBoard gets pictures.
        """
        if not is_main():
            return
        entry: dict[str, object] = {"iteration": iteration, "epoch": epoch + 1, "val_mean_iou": result.mean_iou}
        entry |= {"train_mean_iou": train.mean_iou, "val_iou": result.iou.nan_to_num(-1).tolist()}
        shares = {"label_shares": label_shares, "pseudo_label_shares": pseudo_label_shares}
        shares = {name: values for name, values in shares.items() if values is not None}
        self._write_history(entry | shares)
        if self.writer is None:
            return
        with system_errors(self.curves):
            self.writer.add_scalar("mIoU/val", result.mean_iou, iteration)
            self.writer.add_scalar("mIoU/train", train.mean_iou, iteration)
            self._by_class("val IoU of classes", result.iou.tolist(), iteration)
            for name, values in shares.items():
                self._by_class(SHARE_GROUPS[name], values, iteration)
            for scene in self.scenes if pictures else ():
                masks = [self._colours(mask) for mask in (scene.target, scene.prediction)]
                self._pictures.append((f"{VALIDATION_PICTURE}/{scene.id}", _side_by_side([scene.image, *masks])))
            for tag, picture in self._pictures:
                self.writer.add_image(tag, picture, iteration)
            self._pictures.clear()
            self.writer.flush()

    def quality_is_due(self, schedule: Schedule, epoch: int) -> bool:
        """The quality of pseudo labels is written about ``QUALITY_ROUNDS`` times in a run."""
        return (epoch + 1) % max(1, schedule.epochs // QUALITY_ROUNDS) == 0

    def quality(self, iteration: int, epoch: int, counts: dict[str, list[int]] | None) -> None:
        """How right the pseudo labels were since the last time, as ``Tally.take_quality`` counts it."""
        if counts is None or not is_main():
            return
        self._write_history({"iteration": iteration, "epoch": epoch + 1, "pseudo_label_quality": counts})
        if self.writer is None:
            return
        found = Quality(counts)
        with system_errors(self.curves):
            for name, value in found.shares().items():
                if value is not None:
                    self.writer.add_scalar(f"pseudo label quality/{name}", value, iteration)
            for name, values in found.by_class().items():
                self._by_class(f"pseudo label quality, {name}", values, iteration)

    def _by_class(self, group: str, values: Sequence[float | None], iteration: int) -> None:
        for name, value in zip(self.classes, values, strict=True):
            if self.writer is not None and value is not None and value == value:
                self.writer.add_scalar(f"{group}/{name}", value, iteration)

    def pictures_due(self, config: Config, schedule: Schedule, epoch: int) -> bool:
        """Pictures come with about ``PICTURE_ROUNDS`` of a run's validations, the last one among them."""
        rounds = -(-schedule.epochs // config.trainer.val_per_epochs)
        number = epoch // config.trainer.val_per_epochs
        every = max(1, rounds // PICTURE_ROUNDS)
        return self.writer is not None and (number % every == 0 or epoch + 1 == schedule.epochs)

    def keep_scene(self, sample: Sample, image: Tensor, target: Tensor, prediction: Tensor) -> None:
        """Image, target and prediction of those that are shown."""
        if sample.id in self.shown:
            self.scenes.append(Scene(sample.id, image.cpu(), target.cpu(), prediction.cpu()))

    def keep_unlabelled(self, batch: dict[str, Tensor], out: dict[str, Tensor]) -> None:
        """What became of the unlabelled images: the first of a batch, and what ``USRNStep`` returned for it."""
        if self.subclasses is None or "pseudo_label" not in out:
            return
        views = [denormalise(batch[name][:PICTURES]).cpu() for name in ("u_weak", "u_strong")]
        class_label = out["p_cls"][:PICTURES].argmax(1)
        parent = self.subclasses.class_of_subclass[out["pseudo_sub"][:PICTURES].cpu()]
        size = views[0].shape[2:]
        for number, (weak, strong) in enumerate(zip(*views, strict=True)):
            masks = [self._colours(mask[number]) for mask in (class_label, parent)]
            masks.append(out["left_alone"][number].cpu().byte().mul(255).expand(3, -1, -1))
            masks.append(self._colours(out["pseudo_label"][number]))
            enlarged = F.interpolate(torch.stack(masks), size=size)  # nearest neighbour
            self._pictures.append((f"{UNLABELLED_PICTURE}/{number}", _side_by_side([weak, strong, *enlarged])))

    def flush(self) -> None:
        """Bring to disk what the checkpoint that is about to be written will take for granted."""
        if self.history.is_file() and is_main():
            with system_errors(self.history), open(self.history, "a") as file:
                os.fsync(file.fileno())
        if self.writer is not None:
            with system_errors(self.curves):
                self.writer.flush()

    def close(self, best: float | None) -> None:
        """End the run with its settings and best mean IoU, where it has one, in TensorBoard's table of settings."""
        if self.writer is not None:
            plain = {
                key: value if isinstance(value, bool | int | float | str) else json.dumps(value)
                for key, value in self.settings.items()
            }
            with system_errors(self.curves):
                self.writer.add_hparams(plain, {} if best is None else {"mIoU/best val": best}, run_name=".")
                self.writer.close()

    def _write_history(self, entry: dict) -> None:
        with system_errors(self.history), open(self.history, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def _colours(self, mask: Tensor) -> Tensor:
        """A mask (H, W) in the data set's colours, uint8 (3, H, W)."""
        return torch.from_numpy(self.palette[np.asarray(mask.cpu().to(torch.uint8))]).permute(2, 0, 1)


def _leave_to_the_caller(failure: threading.ExceptHookArgs) -> None:
    """TensorBoard's thread keeps its error for the next call, which says it as one message."""
    if type(failure.thread).__name__ != "_AsyncWriterThread":
        threading.__excepthook__(failure)


def _side_by_side(pictures: list[Tensor]) -> Tensor:
    """Pictures (3, H, W) of one height with gray between them."""
    return torch.cat([F.pad(picture, (0, GAP), value=128) for picture in pictures], dim=2)[..., :-GAP]
