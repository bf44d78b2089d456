"""Which class every subclass belongs to: ``subclasses.json``, which stage 3 writes and stage 4 reads."""

import json
from dataclasses import dataclass, field

import torch

from dataloaders.sets.description import SegmentationData
from trainer.subclasses.counts import paper_counts
from utils.commands import command
from utils.config import Config
from utils.errors import UsageError

TABLE, PICTURE = "subclasses.json", "subclasses.png"
FINISHED_CLASSES = ".finished_classes"
"""Beside the table while stage 3 is at work; then the maps there are not complete."""


@dataclass(frozen=True)
class SubclassTable:
    """What ``subclasses.json`` says.

    Attributes
    ----------
    classes
        Class names.
    counts
        K_c, subclasses of every class.
    sizes
        Samples of every subclass, in subclass order.
    inertia
        Sum of squared distances to the centres, by class; 0 where a class has one subclass.
    algorithm, seed, source
        How, with which random seed and from which folder of features.
    checkpoint
        SHA-256 of the checkpoint that the features were made with; "" where it is not known.
    wanted
        K_c that was asked for, of the classes that have too few samples to fill it.
    seconds
        How long it took, from the last interruption on where there was one.
    """

    classes: list[str]
    counts: list[int]
    sizes: list[int]
    inertia: list[float]
    algorithm: str
    seed: int
    source: str
    checkpoint: str = ""
    wanted: dict[str, int] = field(default_factory=dict)
    seconds: float = field(default=0.0, compare=False)

    @property
    def n_subclasses(self) -> int:
        return sum(self.counts)

    @property
    def class_of_subclass(self) -> torch.Tensor:
        """Class index of every subclass, int64 (K,)."""
        return torch.repeat_interleave(torch.arange(len(self.counts)), torch.tensor(self.counts))


def read_subclass_table(config: Config, data: SegmentationData) -> SubclassTable:
    """The table of the subclass maps that stage 4 trains on.

    Maps without a ``subclasses.json`` are the original's: their counts are those of the published split.
    """
    folder = config.subclass_dir
    path = folder / TABLE
    if path.is_file():
        try:
            table = SubclassTable(**json.loads(path.read_text()))
            sound = all(type(count) is int and count > 0 for count in table.counts)
        except (OSError, ValueError, TypeError):
            sound = False
        if not sound:
            raise UsageError(f"{path}: is no table of subclasses, or damaged. Run stage 3 again with --force.")
        if len(table.counts) != len(data.classes):
            raise UsageError(f"{path}: is for {len(table.counts)} classes, the data set has {len(data.classes)}.")
        return table
    counts = paper_counts(config)
    unfinished = (folder / FINISHED_CLASSES).is_dir()
    if counts is not None and not unfinished and any(folder.glob("*.png")):
        return SubclassTable(list(data.classes), list(counts), [], [], "balanced_kmeans", -1, "the original's maps")
    raise UsageError(
        f"{path}: the subclass maps of stage 3 are missing. Run it first: "
        + command("--clustering True", config.baseline_dir, config)
    )
