"""Every file of a run read once, before a day is spent: ``--check_data``."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import cv2
import numpy as np

from dataloaders.images import ImageLook, ValueRange, look_at_image
from dataloaders.reading import IGNORE
from dataloaders.sets.description import Sample, SegmentationData
from utils.config import Config
from utils.cores import cores
from utils.errors import UsageError, some
from utils.parallel import for_each

SPLITS = ("labelled", "unlabelled", "validation")
WITH_MASKS = ("labelled", "validation")
_MUCH_IGNORED = 0.01  # of the labelled pixels


@dataclass
class Finding:
    """What became of one sample.

    Attributes
    ----------
    size
        Height and width of the image; None where it cannot be used.
    turned
        Whether its EXIF orientation turned it by 90 degrees.
    values, extremes
        The least and the greatest value of a 16-bit image, without and with hot pixels (``ImageLook``); None for any
        other.
    pixels
        int64 (C + 1,), pixels of every class and of none; None without a mask.
    wrong
        One message for each thing that is wrong.
    """

    size: tuple[int, int] | None = None
    turned: bool = False
    values: ValueRange | None = None
    extremes: ValueRange | None = None
    pixels: np.ndarray | None = None
    wrong: list[str] = field(default_factory=list)


@dataclass
class DataReport:
    """All that ``check_data`` found, by split; ``wrong`` lists what stops a run or would be skipped by it."""

    classes: tuple[str, ...]
    findings: dict[str, list[Finding]]
    notes: list[str]
    leaks: list[str] = field(default_factory=list)

    @property
    def value_range(self) -> ValueRange | None:
        """The least and the greatest value of all 16-bit images; None where there are none."""
        return range_of([one.values for found in self.findings.values() for one in found])

    @property
    def wrong(self) -> list[str]:
        lines = [line for found in self.findings.values() for one in found for line in one.wrong]
        for split in WITH_MASKS:
            pixels = _pixels(self.findings[split])
            if pixels is not None and not pixels[:-1].any():
                lines.append(_is_void(split, len(self.findings[split])))
        return list(dict.fromkeys([*self.leaks, *lines]))

    def text(self) -> str:
        """Counts and sizes, class pixel shares, notes and, at the end, all that is wrong."""
        lines = [f"{'':12}{'images':>9}{'unusable':>10}{'turned':>8}  sizes (width x height)"]
        for split, found in self.findings.items():
            bad, turned = sum(bool(one.wrong) for one in found), sum(one.turned for one in found)
            lines.append(f"{split:12}{len(found):>9,}{bad:>10,}{turned:>8,}  {_sizes(found)}")
        pixels = {split: _pixels(found) for split, found in self.findings.items()}
        pixels = {split: counts for split, counts in pixels.items() if counts is not None}
        lines += ["", f"{'share of pixels':18}" + "".join(f"{split:>14}" for split in pixels)]
        for index, name in enumerate((*self.classes, "(no class)")):
            shares = [100 * counts[index] / max(1, counts.sum()) for counts in pixels.values()]
            lines.append(f"{name:18}" + "".join(f"{share:>12.2f} %" for share in shares))
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join([*lines, "", f"wrong: {len(self.wrong):,}", *(f"  {line}" for line in self.wrong)])


def check_data(config: Config, data: SegmentationData, workers: int | None = None) -> DataReport:
    """Read every image and mask of a run once, on ``workers`` processes (all cores unless given)."""
    splits = {split: getattr(data, split) for split in SPLITS}
    samples = list(dict.fromkeys(sample for split in splits.values() for sample in split))
    look = partial(_look, data.without_samples())
    found = for_each(look, samples, workers=workers or cores(), label="reading")
    finding_of = dict(zip(samples, found, strict=True))
    findings = {split: [finding_of[sample] for sample in splits[split]] for split in SPLITS}
    return DataReport(data.classes, findings, _notes(config, data, findings), _leaks(data, SPLITS))


def refuse_leaks(data: SegmentationData, parts: Sequence[str]) -> None:
    """Refuse training images that are validation images as well, among the ``parts`` that a training uses.

    Raises
    ------
    UsageError
        There are some.
    """
    for line in _leaks(data, parts):
        raise UsageError(line)


def _leaks(data: SegmentationData, parts: Sequence[str]) -> list[str]:
    held_out = {sample.image for sample in data.validation} if "validation" in parts else set()
    both = {part: [sample.image for sample in getattr(data, part) if sample.image in held_out] for part in parts}
    return [
        f"{some(images, 10)}: {len(images):,} of the {part} images are validation images as well, whose scores would "
        "say nothing. Take them out of one of the two lists."
        for part, images in both.items()
        if images and part != "validation"
    ]


def range_of(extents: Iterable[ValueRange | None]) -> ValueRange | None:
    """The least and the greatest of the values of many images; None where there are no two."""
    found = [extent for extent in extents if extent is not None]
    low, high = min((low for low, _ in found), default=0), max((high for _, high in found), default=0)
    return (low, high) if low < high else None


def note_of_hot_pixels(looks: Iterable["ImageLook | Finding"]) -> str | None:
    """What is said where a few pixels of 16-bit images are left out of the range; None where none are."""
    hot = [look.extremes for look in looks if look.extremes is not None and look.extremes != look.values]
    if not hot:
        return None
    low, high = min(low for low, _ in hot), max(high for _, high in hot)
    return (
        f"{len(hot):,} of the 16-bit images hold a few values far beyond their others, as hot and dead pixels do (from "
        f"{low} to {high} with these): they do not widen the range, and what lies beyond it becomes black or white"
    )


def refuse_void_masks(data: SegmentationData, split: str) -> None:
    """Refuse masks without a pixel of a class, before a run trains or is evaluated on them.

    One mask is read where it has such a pixel. A mask that cannot be read is named where it is needed.

    Parameters
    ----------
    split
        "labelled" or "validation".

    Raises
    ------
    UsageError
        No pixel of the split has a class.
    """
    samples = getattr(data, split)
    for sample in samples:
        try:
            if (data.read_mask(sample.label) != IGNORE).any():
                return
        except UsageError:
            return
    raise UsageError(_is_void(split, len(samples)))


def lost_classes(data: SegmentationData) -> str | None:
    """A warning where classes have no labelled pixel while ignored pixels abound: one of them may be ignored.

    Labelled masks are read until every class is found, which a few dozen of them show; all are read where one is
    missing.
    """
    pixels = np.zeros(len(data.classes) + 1, np.int64)
    for counts in pixels_of_masks(data, data.labelled):
        pixels += counts
        if pixels[:-1].all():
            return None
    return _warning_of_lost(data, pixels)


def _warning_of_lost(data: SegmentationData, pixels: np.ndarray) -> str | None:
    absent = [name for name, count in zip(data.classes, pixels[:-1], strict=True) if not count]
    ignored = pixels[-1] / max(1, pixels.sum())
    if not absent or ignored <= _MUCH_IGNORED:
        return None
    return (
        f"no labelled pixel is of {some(absent)}, while {ignored:.1%} of the pixels are {data.ignore_index}, which is "
        f"ignored. If {data.ignore_index} is a class in the masks, give it its index there, or set ignore_index to a "
        "value that they do not hold"
    )


def pixels_of_masks(data: SegmentationData, samples: Iterable[Sample]) -> Iterator[np.ndarray]:
    """Pixels of every class, and of none, int64 (C + 1,), of each mask that can be read.

    The others are passed over: they are named where they are needed.
    """
    for sample in samples:
        try:
            mask = data.read_mask(sample.mask)
        except UsageError:
            continue
        yield _count(mask, len(data.classes))


def _count(mask: np.ndarray, n_classes: int) -> np.ndarray:
    """Pixels of every class, and of none, (C + 1,)."""
    return np.bincount(np.where(mask == IGNORE, n_classes, mask).ravel(), minlength=n_classes + 1)


def _is_void(split: str, masks: int) -> str:
    return (
        f"{split}: none of the {masks:,} masks has a pixel of a class; every pixel is ignored. Mend the masks, or the "
        "key ignore_index."
    )


def _look(data: SegmentationData, sample: Sample) -> Finding:
    cv2.setNumThreads(0)
    finding, image, mask = Finding(), None, None
    with decoder_complaints() as complaints:
        if sample.label is not None:
            try:
                image, mask = data.read_pair(sample)
            except UsageError as error:
                finding.wrong.append(str(error))
        if image is None:
            try:
                image = data.read_image(sample)
            except UsageError as error:
                finding.wrong = list(dict.fromkeys([*finding.wrong, str(error)]))
    if image is not None:
        look = look_at_image(sample.image)
        finding.size, finding.values, finding.extremes = image.shape[:2], look.values, look.extremes
        finding.turned = look.stored_size != finding.size
    if mask is not None:
        finding.pixels = _count(mask, len(data.classes))
    finding.wrong += [f"{sample.image}: is damaged ({line})." for line in complaints if line.startswith("Corrupt JPEG")]
    return finding


@contextmanager
def decoder_complaints() -> Iterator[list[str]]:
    """The lines that decoders written in C leave on stderr: the only sign of damage in the middle of a JPEG."""
    lines: list[str] = []
    with tempfile.TemporaryFile() as file:
        stderr = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            lines += file.read().decode(errors="replace").splitlines()


def _sizes(found: list[Finding]) -> str:
    sizes = sorted({one.size for one in found if one.size}, key=lambda size: size[0] * size[1])
    ends = dict.fromkeys(f"{width} x {height}" for height, width in (*sizes[:1], *sizes[-1:]))
    return " to ".join(ends) + (f", {len(sizes):,} sizes" if len(sizes) > 1 else "")


def _pixels(found: list[Finding]) -> np.ndarray | None:
    counts = [one.pixels for one in found if one.pixels is not None]
    return np.sum(counts, axis=0) if counts else None


def _notes(config: Config, data: SegmentationData, findings: dict[str, list[Finding]]) -> list[str]:
    """What is no mistake by itself, but worth knowing before a day is spent."""
    notes = []
    for split in WITH_MASKS:
        pixels = _pixels(findings[split])
        absent = (
            [] if pixels is None else [name for name, there in zip(data.classes, pixels[:-1], strict=True) if not there]
        )
        if absent:
            notes.append(f"{split}: no pixel of {', '.join(absent)}")
    labelled = _pixels(findings["labelled"])
    lost = None if labelled is None else _warning_of_lost(data, labelled)
    notes += [lost] if lost else []
    if len(data.labelled) < config.train_supervised.batch_size:
        notes.append(f"{len(data.labelled)} labelled images are fewer than a batch; images occur in it more than once")
    both = {sample.image for sample in data.labelled} & {sample.image for sample in data.unlabelled}
    if both:
        notes.append(f"{len(both):,} labelled images are unlabelled images as well, such as {min(both)}")
    hot = note_of_hot_pixels(one for found in findings.values() for one in found)
    notes += [hot] if hot else []
    held = range_of([one.values for found in findings.values() for one in found])
    if held and data.value_range and (held[0] < data.value_range[0] or held[1] > data.value_range[1]):
        notes.append(
            f"16-bit images hold values from {held[0]} to {held[1]}, but data.value_range is {data.value_range[0]} to "
            f"{data.value_range[1]}: what lies beyond is cut off"
        )
    return notes
