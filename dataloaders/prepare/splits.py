"""Split lists of other projects, written in the format that a run reads (docs/data.md, "Split lists")."""

from pathlib import Path
from typing import NamedTuple

from dataloaders.sets.description import read_text
from utils.errors import UsageError, some
from utils.files import write_whole

VOC, CITYSCAPES = "voc_splits", "city_splits"
_LINE = {
    VOC: "/JPEGImages/{id}.jpg /SegmentationClassAug/{id}.png",
    CITYSCAPES: "images/train/{id}_leftImg8bit.png segmentation/train/{id}_gtFine_labelTrainIds.png",
}
_VALIDATION_CITIES = ("frankfurt", "lindau", "munster")


class Imported(NamedTuple):
    """The lists that were found, the files that were written, and what could not be checked."""

    sources: tuple[Path, Path]
    targets: tuple[Path, Path]
    counts: tuple[int, int]
    note: str

    def text(self) -> str:
        """A line a list, and the note."""
        kinds = zip(("labelled", "unlabelled"), self.counts, self.sources, self.targets, strict=True)
        lines = [f"{count:,} {kind}: {source} → {target}" for kind, count, source, target in kinds]
        return "\n".join([*lines, self.note])


def import_splits(source: Path, target: Path, validation: Path | None = None) -> Imported:
    """Write the two lists of ``source`` to ``target``: ``<n>_train_supervised.txt``, ``<n>_train_unsupervised.txt``.

    A line is an image's id (as CPS and U2PL have it), or the path of an image and, after a space, a tab or a comma, of
    its mask (as UniMatch and ST++ have it).

    Parameters
    ----------
    source
        A folder with one labelled and one unlabelled list (``labeled.txt``, ``train_aug_labeled_1-8.txt``, …).
    target
        A folder called ``voc_splits<datalist>`` or ``city_splits<datalist>``, which says the data set.
    validation
        A list of validation images. Otherwise ``val.txt`` in ``source`` or a folder above it; Cityscapes' are known by
        their cities.

    Raises
    ------
    UsageError
        There are not two such lists, an image is in both, twice in one or in validation, or other lists are in the way.
    """
    data_set = next((name for name in _LINE if target.name.startswith(name)), None)
    if data_set is None:
        raise UsageError(f"--to {target}: must end in {VOC}<number> or {CITYSCAPES}<number>, which says the data set.")
    sources = _find_lists(source)
    labelled, unlabelled = (_read_ids(path) for path in sources)
    _refuse_common(labelled, unlabelled, f"{sources[0]} and {sources[1]}: both list")
    note = _check_validation([*labelled, *unlabelled], data_set, source, validation)
    names = f"{len(labelled)}_train_supervised.txt", f"{len(labelled)}_train_unsupervised.txt"
    targets = target / names[0], target / names[1]
    texts = ["".join(_LINE[data_set].format(id=id_) + "\n" for id_ in ids) for ids in (labelled, unlabelled)]
    for path, text in zip(targets, texts, strict=True):
        if path.exists() and read_text(path, "this list") != text:
            raise UsageError(f"{path}: is another list. Remove it, or name another folder with --to.")
    for path, text in zip(targets, texts, strict=True):
        write_whole(path, text)
    return Imported(sources, targets, (len(labelled), len(unlabelled)), note)


def _find_lists(folder: Path) -> tuple[Path, Path]:
    """The labelled and the unlabelled list of a folder, by their names."""
    if not folder.is_dir():
        raise UsageError(f"--from {folder}: there is no such folder.")
    files = sorted(folder.glob("*.txt"))
    unlabelled = [path for path in files if "unlabel" in path.stem.lower() or "unsup" in path.stem.lower()]
    labelled = [
        path
        for path in files
        if path not in unlabelled and ("label" in path.stem.lower() or "sup" in path.stem.lower())
    ]
    if len(labelled) != 1 or len(unlabelled) != 1:
        found = ", ".join(path.name for path in files) or "no .txt file"
        raise UsageError(
            f"--from {folder}: must hold one labelled and one unlabelled list (labeled.txt and unlabeled.txt), and "
            f"holds {found}. Name the folder of one split, or copy its two lists into a folder of their own."
        )
    return labelled[0], unlabelled[0]


def _read_ids(path: Path) -> list[str]:
    """The image ids of a list, each once."""
    ids = []
    for line in read_text(path, "this list").splitlines():
        words = line.replace(",", " ").split()
        if words:
            name = words[0].rpartition("/")[2]
            stem, dot, _ = name.rpartition(".")
            ids.append((stem if dot else name).removesuffix("_leftImg8bit"))
    if not ids:
        raise UsageError(f"{path}: lists no image.")
    if len(set(ids)) < len(ids):
        twice = next(id_ for id_ in ids if ids.count(id_) > 1)
        raise UsageError(f"{path}: lists {twice} twice. Mend the list.")
    return ids


def _check_validation(ids: list[str], data_set: str, source: Path, validation: Path | None) -> str:
    """Refuse a split that trains on validation images; what was checked."""
    if validation is None:
        places = [source, *list(source.absolute().parents)[:3]]
        validation = next((place / "val.txt" for place in places if (place / "val.txt").is_file()), None)
    if data_set == CITYSCAPES:
        held_out = {id_ for id_ in ids if id_.startswith(_VALIDATION_CITIES)}
        checked = f"the cities {', '.join(_VALIDATION_CITIES)}"
    elif validation is not None:
        held_out, checked = set(_read_ids(validation)), str(validation)
    else:
        return "not checked: whether validation images are among them. Name their list with --validation."
    _refuse_common(ids, held_out, "these are validation images:")
    return f"no image is in both lists, and none in validation ({checked})"


def _refuse_common(ids: list[str], others: list[str] | set[str], what: str) -> None:
    common = sorted(set(ids) & set(others))
    if common:
        raise UsageError(f"{what} {some(common)}. Nothing is written.")
