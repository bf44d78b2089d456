"""Whether all processes of a run, perhaps on several machines, have the same data set before them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from dataloaders.sets.description import SegmentationData
from utils.distributed import gather, world_size
from utils.errors import UsageError


def refuse_other_data(data: SegmentationData, parts: Sequence[str]) -> None:
    """Refuse, in every process, to go on where one finds other images or masks than the first.

    Compared are classes, ids and the sizes of the files of these ``parts``, "labelled" and so on. Every process must
    call it.

    Raises
    ------
    UsageError
        With the first rank that differs, and in what.
    """
    if world_size() == 1:
        return
    own = {"classes": (len(data.classes), _digest(data.classes))}
    for part in parts:
        samples = getattr(data, part)
        files = [(sample.id, _size(sample.image), _size(sample.label)) for sample in samples]
        own[f"{part} images"] = len(samples), _digest(files)
    first, *others = gather(own)
    for rank, found in enumerate(others, 1):
        for what, (count, digest) in found.items():
            if digest != first[what][1]:
                how = (
                    "other ids or files of other sizes" if count == first[what][0] else f"{count}, not {first[what][0]}"
                )
                raise UsageError(
                    f"rank {rank} finds other {what} than rank 0 ({how}). Every machine needs the same data set in "
                    "data_dir, and the same split lists."
                )


def _size(path: Path | None) -> int:
    return path.stat().st_size if path is not None and path.is_file() else -1


def _digest(values: object) -> str:
    return hashlib.sha256(repr(values).encode(errors="surrogateescape")).hexdigest()
