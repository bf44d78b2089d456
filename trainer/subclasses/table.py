"""Which class every subclass belongs to: ``subclasses.json``, which stage 3 writes and stage 4 reads."""

from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import torch
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter

from dataloaders.sets.description import SegmentationData
from dataloaders.streams import subclass_map_path
from trainer.subclasses.counts import MAX_SUBCLASSES, paper_counts
from trainer.subclasses.originals import counts_of_originals
from utils.commands import command
from utils.config import Config
from utils.errors import UsageError
from utils.fingerprint import changed, digest, fingerprint
from utils.inputs import read_json

TABLE, PICTURE = "subclasses.json", "subclasses.png"
FINISHED_CLASSES = ".finished_classes"
"""Beside the table while stage 3 is at work; then the maps there are not complete."""


Count = Annotated[int, Field(ge=1)]
Size = Annotated[int, Field(ge=0)]
Inertia = Annotated[float, Field(ge=0, allow_inf_nan=False)]


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
    made_from
        Fingerprints of the classes and of the labelled images and masks.
    maps
        Fingerprint of the maps.
    seconds
        How long it took, from the last interruption on where there was one.
    """

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")

    classes: list[str]
    counts: list[Count]
    sizes: list[Size]
    inertia: list[Inertia]
    algorithm: str
    seed: int
    source: str
    checkpoint: str = ""
    wanted: dict[str, int] = field(default_factory=dict)
    made_from: dict[str, str] = field(default_factory=dict)
    maps: str = ""
    seconds: float = field(default=0.0, compare=False)

    @property
    def n_subclasses(self) -> int:
        return sum(self.counts)

    @property
    def class_of_subclass(self) -> torch.Tensor:
        """Class index of every subclass, int64 (K,)."""
        return torch.repeat_interleave(torch.arange(len(self.counts)), torch.tensor(self.counts))


def _agreeing(table: SubclassTable) -> SubclassTable:
    """The table, where its lists belong together; those of a rehearsal have no sizes."""
    if len(table.counts) != len(table.classes) or len(table.inertia) not in (0, len(table.classes)):
        raise ValueError("its lists are not of its classes")
    if len(table.sizes) not in (0, table.n_subclasses):
        raise ValueError(f"it has {len(table.sizes)} sizes for {table.n_subclasses} subclasses")
    if table.n_subclasses > MAX_SUBCLASSES:
        raise ValueError(f"it has {table.n_subclasses:,} subclasses; at most {MAX_SUBCLASSES:,} are possible")
    if any(count == 1 and inertia for count, inertia in zip(table.counts, table.inertia, strict=False)):
        raise ValueError("a class of one subclass has an inertia")
    return table


_TABLE: TypeAdapter[SubclassTable] = TypeAdapter(Annotated[SubclassTable, AfterValidator(_agreeing)])


def read_subclass_table(config: Config, data: SegmentationData) -> SubclassTable:
    """The table of the subclass maps that stage 4 trains on.

    Maps without a ``subclasses.json`` are the original's: their counts are those of a published split.
    """
    folder = config.subclass_dir
    path = folder / TABLE
    if path.is_file():
        again = "Run stage 3 again with --force: " + command("--clustering True --force", config.baseline_dir, config)
        table = read_json(path, _TABLE, again)
        if table.classes != list(data.classes):
            here, there = next(pair for pair in zip_longest(data.classes, table.classes) if pair[0] != pair[1])
            raise UsageError(f"{path}: is for {len(table.classes)} classes, the data set has {len(data.classes)}; the "
                             f"first that differs is {here!r} here, {there!r} there. {again}")  # fmt: skip
        return table
    unfinished = (folder / FINISHED_CLASSES).is_dir()
    if paper_counts(config) is not None and not unfinished and any(folder.glob("*.png")):
        counts = list(counts_of_originals(config, data))
        return SubclassTable(list(data.classes), counts, [], [], "balanced_kmeans", -1, "the original's maps")
    raise UsageError(f"{path}: the subclass maps of stage 3 are missing. Run it first: {clustering_command(config)}")


def maps_fingerprint(folder: Path, data: SegmentationData) -> str:
    """What the subclass maps of the labelled images are, in ``folder``."""
    return digest([fingerprint(subclass_map_path(folder, sample)) for sample in data.labelled])


def refuse_other_maps(config: Config, table: SubclassTable, maps: str, data: SegmentationData) -> None:
    """Refuse a table that is not of the labelled images and masks, or not of the ``maps`` (their fingerprint)."""
    other = changed(table.made_from, data.fingerprints("labelled"))
    if table.maps not in ("", maps):
        other.append("the maps beside it")
    if other:
        raise UsageError(
            f"{config.subclass_dir / TABLE}: is not of what is there now: {' and '.join(other)} changed since. Put "
            f"back what was there, or run stages 2 and 3 again: {clustering_command(config)} --force"
        )


def clustering_command(config: Config) -> str:
    """The command of stage 3, for messages."""
    return command("--clustering True", config.baseline_dir, config)
