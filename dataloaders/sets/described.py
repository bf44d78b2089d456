"""A data set that a file describes: images stay where they are, index masks and the split lie with the description.

``--init_data`` writes it (``dataloaders/own``); a user may edit it: rename classes, move images between the lists.
"""

import json
from collections import Counter
from itertools import chain, combinations
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from dataloaders.sets.description import LazySamples, Sample, SegmentationData
from dataloaders.sets.splits import choose_labelled, labels_of_unlabelled
from utils.config import Config
from utils.errors import UsageError
from utils.inputs import first_problem, read_plain, without_repetition
from utils.palette import palette_of

DESCRIPTION = "dataset.json"
MASKS = "masks"


def _file_name(value: str) -> str:
    if value in {"", ".", ".."} or set(value) & set("/\\\0"):
        raise ValueError("an image's id must be a plain file name")
    return value


def _inside(value: str) -> str:
    if Path(value).is_absolute() or ".." in Path(value).parts:
        raise ValueError("an image's path must lie below the images folder")
    return value


Images = dict[Annotated[str, AfterValidator(_file_name)], Annotated[str, AfterValidator(_inside)]]
"""Image id → path below the images folder."""
Channel = Annotated[int, Field(ge=0, le=255)]

Value = int | Annotated[str, Field(pattern="^(#[0-9a-f]{6}|transparent)$")]
"""A value of the user's masks, or a colour."""


class Description(BaseModel):
    """``dataset.json``. The mask of an image is ``masks/<id>.png`` beside it: class indices, 255 for no class.

    ``folds`` (``Config.fold``) divide the ids of ``labelled`` and ``validation``, each of them in one fold.
    ``masks`` and ``values`` say of what these were made: the user's masks, and the value or the colour (``#rrggbb``) of
    every class in them; ``aliases`` are other values and those that they mean; ``snap_to`` are the values to the
    nearest of which all others are taken. ``assumed`` is what was said. ``--init_data`` takes the file again.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    images: str
    masks: str | None = None
    assumed: list[str] = []
    classes: list[str]
    values: list[Value] | None = None
    aliases: list[tuple[Value, Value]] = []
    snap_to: list[Value] | None = None
    colours: list[tuple[Channel, Channel, Channel]]
    labelled: Images
    validation: Images
    unlabelled: Images
    folds: list[list[str]] | None = None
    value_range: tuple[int, int] | None = None

    def text(self) -> str:
        """The file's text: an image a line."""
        lists = (
            f'    "{key}": ' + json.dumps(value, indent=8, ensure_ascii=False).replace("\n}", "\n    }")
            if isinstance(value, dict)
            else f'    "{key}": {json.dumps(value, ensure_ascii=False)}'
            for key, value in self.model_dump().items()
        )
        return "{\n" + ",\n".join(lists) + "\n}\n"


def open_described(root: Path, config: Config) -> SegmentationData:
    """The data set that ``root/dataset.json`` describes.

    Labelled images beyond ``n_labeled_examples`` join the unlabelled ones.
    """
    path = root / DESCRIPTION
    described = read_description(path)
    if config.fold is not None:
        described = _of_fold(described, config.fold, path)
    folder = Path(described.images)
    if not folder.is_dir():
        raise UsageError(
            f'{path}: its images folder {folder} is gone. Put it back, or write its new place under "images" there.'
        )
    classes = tuple(config.classes or described.classes)
    if len(classes) != len(described.classes):
        raise UsageError(f'key "classes": names {len(classes)} classes, but {path} has {len(described.classes)}.')

    def samples(images: Images, *, labels: bool) -> tuple[Sample, ...]:
        found = [
            Sample(id_, folder / image, root / MASKS / f"{id_}.png" if labels else None)
            for id_, image in images.items()
        ]
        files = [file for sample in found for file in (sample.image, sample.label) if file]
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise UsageError(
                f"{path}: {len(missing)} of its files are gone, the first is {missing[0]}. Put them back, or run "
                "--init_data again with --force."
            )
        return tuple(found)

    def chosen() -> list[str]:
        return choose_labelled(described.labelled, config.n_labeled_examples, config.datalist)[0]

    def labelled() -> tuple[Sample, ...]:
        return samples({id_: described.labelled[id_] for id_ in chosen()}, labels=True)

    def unlabelled() -> tuple[Sample, ...]:
        rest = described.labelled.keys() - set(chosen())
        others = {id_: image for id_, image in described.labelled.items() if id_ in rest}
        with_masks = bool(labels_of_unlabelled(config))
        return (*samples(described.unlabelled, labels=False), *samples(others, labels=with_masks))

    def validation() -> tuple[Sample, ...]:
        if not described.validation:
            raise UsageError(f"{path}: its validation set is empty. Put images with masks into it.")
        return samples(described.validation, labels=True)

    palette, ignore_index = palette_of(tuple(described.colours)), config.ignore_index
    parts = map(LazySamples, (labelled, unlabelled, validation))
    return SegmentationData(classes, palette, *parts, ignore_index=ignore_index)


def _of_fold(described: Description, fold: str, path: Path) -> Description:
    """The description whose validation images are those of a fold (``2/5``), and whose labelled ones all others."""
    which, count = map(int, fold.split("/"))
    folds = described.folds or []
    if count != len(folds) or which > count:
        raise UsageError(f'key "fold": {fold}, but {path} has {len(folds)} folds.')
    masked = described.labelled | described.validation
    validation = {id_: masked[id_] for id_ in folds[which - 1]}
    labelled = {id_: image for id_, image in masked.items() if id_ not in validation}
    return described.model_copy(update={"labelled": labelled, "validation": validation})


def read_description(path: Path) -> Description:
    try:
        content = read_plain(path)
        described = Description.model_validate_json(content)
        json.loads(content, object_pairs_hook=without_repetition)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {first_problem(error)}. Mend the file.") from None
    except ValueError as error:  # a key that stands twice
        raise UsageError(f"{path}: {error}. Mend the file.") from None
    lists = {name: getattr(described, name).keys() for name in ("labelled", "validation", "unlabelled")}
    for one, other in combinations(lists, 2):
        both = sorted(lists[one] & lists[other])
        if both:
            raise UsageError(f"{path}: {both[0]} is in {one} and in {other}. Leave every image in one list.")
    if described.folds is not None:
        there, wanted = Counter(chain(*described.folds)), Counter(lists["labelled"] | lists["validation"])
        if wrong := sorted((there - wanted) | (wanted - there)):
            raise UsageError(
                f"{path}: key folds: {wrong[0]}: every image of labelled and validation has to be in one fold, and no "
                "other image in any."
            )
    if len(described.classes) != len(described.colours):
        raise UsageError(
            f"{path}: has {len(described.classes)} classes and {len(described.colours)} colours; give each class one."
        )
    return described
