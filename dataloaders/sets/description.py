"""What a data set is: classes, colours, and which image and mask belong together."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from dataloaders.images import ValueRange, read_sized
from dataloaders.reading import read_mask
from utils.errors import UsageError, some
from utils.fingerprint import digest, fingerprint
from utils.inputs import plain_text, read_plain

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_SHOWN = 10  # names in one message
_RANGE = "the range of 16-bit values"


@dataclass(frozen=True)
class Sample:
    """One image. ``label`` is None where it has no mask; ``id`` names its outputs."""

    id: str
    image: Path
    label: Path | None = None

    @property
    def mask(self) -> Path:
        """``label``, of a sample that has one.

        Raises
        ------
        ValueError
            It has none.
        """
        if self.label is None:
            raise ValueError(f"{self.id} has no mask")
        return self.label


class LazySamples(Sequence[Sample]):
    """Samples that are looked up when they are first asked for, so that a stage opens no list and no file that it does
    not use. What is wrong with them is said then."""

    def __init__(self, look_up: Callable[[], tuple[Sample, ...]]):
        self._look_up = look_up

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        return self._look_up()

    def __reduce__(self) -> tuple:
        return tuple, (self._samples,)  # for another process they are looked up here

    def __getitem__(self, at):
        return self._samples[at]

    def __len__(self) -> int:
        return len(self._samples)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._samples == tuple(other)


@dataclass(frozen=True)
class SegmentationData:
    """A data set, opened: everything that the streams need to know of it.

    Attributes
    ----------
    classes
        Names in the order of their indices.
    palette
        uint8 (256, 3), the RGB colour of every mask value.
    labelled, unlabelled, validation
        The images of a run, looked up when they are first used. Labelled and validation samples have masks.
    ignore_index
        The mask value of pixels without a class.
    value_range
        The values of 16-bit images that become black and white; None is the whole range of the type.

    Raises
    ------
    UsageError
        Two classes have one name, there are not 2 to 255 of them, or one cannot be shown as it is. When samples are
        looked up: an image stands twice in a list, two images have one mask, outputs of two samples would have one name
        or one that cannot be shown.
    """

    classes: tuple[str, ...]
    palette: np.ndarray
    labelled: Sequence[Sample]
    unlabelled: Sequence[Sample]
    validation: Sequence[Sample]
    ignore_index: int = field(kw_only=True)
    value_range: ValueRange | None = field(default=None, kw_only=True)

    def __post_init__(self):
        if not 2 <= len(self.classes) <= 255:
            raise UsageError(f"there are {len(self.classes)} classes; a data set has 2 to 255 of them.")
        for name, count in Counter(self.classes).items():
            if count > 1:
                raise UsageError(f"{count} classes are called {name!r}; give every class a name of its own.")
        for name in self.classes:
            check_name(name, f"class {name!r}", "Give it another name")
        for part in ("labelled", "unlabelled", "validation"):
            object.__setattr__(self, part, _checked(part, getattr(self, part)))

    def without_samples(self) -> "SegmentationData":
        """The description alone, as other processes need it to read masks."""
        return replace(self, labelled=(), unlabelled=(), validation=())

    def counts(self, parts: Sequence[str]) -> str:
        """``8 labelled, 5 validation images``."""
        return ", ".join(f"{len(getattr(self, part)):,} {part}" for part in parts) + " images"

    def fingerprints(self, *splits: str) -> dict[str, str]:
        """Fingerprints of the classes, of how values become colours, and of ``splits``, by what messages call them.

        Another one means that files, ids or their order have changed; a copy in another place has the same. Files are
        looked at once (``utils.fingerprint``).
        """
        for split in splits:
            name = f"the {split} images or masks"
            if name not in self._fingerprints:
                files = [(sample.id, sample.image, sample.label) for sample in getattr(self, split)]
                self._fingerprints[name] = digest(
                    [[id_, fingerprint(image), label and fingerprint(label)] for id_, image, label in files]
                )
        wanted = {"the classes", _RANGE, *(f"the {split} images or masks" for split in splits)}
        return {name: value for name, value in self._fingerprints.items() if name in wanted}

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        return {
            "the classes": digest([self.classes, self.palette.tolist(), self.ignore_index]),
            _RANGE: digest(self.value_range),
        }

    def read_mask(self, path: Path) -> np.ndarray:
        """A class mask of this data set as int16 (H, W), ``IGNORE`` where a pixel has no class.

        Raises
        ------
        UsageError
            As ``dataloaders.reading.read_mask``.
        """
        return read_mask(path, len(self.classes), self.ignore_index, self.palette)

    def read_pair(self, sample: Sample, least_side: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Image, uint8 (H, W, 3), and class mask, int16 (H, W), of a sample that has a mask.

        The image is upright, as viewers show it, unless the mask was drawn on the stored pixels, as its size says. It
        may be smaller than its mask where ``least_side`` is not 0 (``dataloaders.images.read_sized``).

        Raises
        ------
        UsageError
            One of them cannot be read, or they are not of one size.
        """
        mask = self.read_mask(sample.mask)
        image, size = self.read_sized(sample, least_side, mask.shape)
        refuse_other_size(sample, mask, size)
        return image, mask

    def read_image(self, sample: Sample) -> np.ndarray:
        """The image of a sample, uint8 (H, W, 3)."""
        return self.read_sized(sample)[0]

    def read_sized(
        self, sample: Sample, least_side: int = 0, mask_size: tuple[int, int] | None = None
    ) -> tuple[np.ndarray, tuple[int, int]]:
        """The image of a sample and its height and width, as ``dataloaders.images.read_sized`` gives them."""
        return read_sized(sample.image, mask_size=mask_size, value_range=self.value_range, least_side=least_side)


def refuse_other_size(sample: Sample, mask: np.ndarray, size: tuple[int, int], or_else: str = "") -> None:
    """Refuse a mask that has not the ``size`` (H, W) of its image; ``or_else`` is another way out."""
    if mask.shape != size:
        raise UsageError(
            f"{sample.label}: is {mask.shape[1]} x {mask.shape[0]} pixels, but its image {sample.image} is "
            f"{size[1]} x {size[0]}. Make them the same size{or_else}."
        )


def _checked(part: str, samples: Sequence[Sample]) -> Sequence[Sample]:
    """The samples of a part, checked; those that are looked up later are checked then."""
    if isinstance(samples, LazySamples):
        return LazySamples(lambda: tuple(_checked(part, tuple(samples))))
    refuse_repeated((sample.image for sample in samples), f"{part} images")
    refuse_repeated((sample.label for sample in samples if sample.label), f"masks of the {part} images")
    for sample in samples:
        check_name(sample.id, f"{str(sample.image)!r}", "Rename the file")
    if part != "unlabelled":
        _check_names({sample.image: sample.id for sample in samples})
        _check_names({sample.label: sample.label.name for sample in samples if sample.label is not None})
    return samples


def check_name(name: str, where: str, what_to_do: str) -> None:
    """Refuse a name that log, report and files cannot hold as it is (``plain_text``)."""
    try:
        plain_text(name)
    except ValueError as error:
        raise UsageError(f"{where}: this name cannot be used: {error}. {what_to_do}.") from None


def refuse_repeated(names: Iterable[object], where: str) -> None:
    """Refuse a list in which a name stands twice: it would be shorter than it says."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UsageError(
            f"{where}: {some(repeated, _SHOWN)} {_stand(repeated)} there more than once. Leave each in once."
        )


def _stand(names: list) -> str:
    return "stands" if len(names) == 1 else "stand"


def _check_names(names: dict[Path, str]) -> None:
    path_of: dict[str, Path] = {}
    for path, name in names.items():
        other = path_of.setdefault(name, path)
        if other != path:
            raise UsageError(
                f"{other} and {path}: what a run writes is named after these files, and {name} would be written twice. "
                "Rename one of them."
            )


def read_text(path: Path, what: str) -> str:
    """The contents of a text file, which messages call ``what``; a byte order mark is dropped.

    Raises
    ------
    UsageError
        The file cannot be read, or is no text in UTF-8.
    """
    try:
        text = read_plain(path).decode("utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError:
        raise UsageError(f"{path}: {what} is not in UTF-8. Save it in that encoding.") from None
    except OSError as error:
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise UsageError(f'{path}: {what} {reason}. README, section "Data", says what the file holds.') from None


def are_missing(kind: str, names: list[str]) -> str:
    """``the image a is missing``, or ``the images a, b and 7 more are missing``."""
    if len(names) == 1:
        return f"the {kind} {names[0]} is missing"
    return f"the {kind}s {some(names, _SHOWN)} are missing"


def find_root(data_dir: str, dataset: str) -> Path:
    """The root of a data set; ``dataset/x`` and ``datasets/x`` both find the one that exists."""
    root = Path(data_dir)
    parts = list(root.parts)
    other = {"dataset": "datasets", "datasets": "dataset"}
    twins = [
        Path(*[other.get(part, part) if i == at else part for i, part in enumerate(parts)])
        for at, name in enumerate(parts)
        if name in other
    ]
    for candidate in [root, *twins]:
        if candidate.is_dir():
            return candidate
    raise UsageError(
        f"data_dir {data_dir}: there is no such folder for the data set {dataset}. "
        'README, section "Data", says what goes where; --set data_dir=<folder> names another place.'
    )
