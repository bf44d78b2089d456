"""Which images a run uses: read a list file, or make the split by seed (docs/method.md section 2)."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Literal

from dataloaders.sets.description import LazySamples, Sample, are_missing, read_text, refuse_repeated
from utils.config import Config
from utils.errors import UsageError

LISTS_DIR = Path(__file__).parents[1]
"""Where split lists in the original's format are looked for: ``<LISTS_DIR>/voc_splits0/``."""


Labels = bool | Literal["if there"]
"""Whether samples have masks: all of them, none, or those whose mask is there."""


def labels_of_unlabelled(config: Config) -> Labels:
    """Masks of unlabelled images are looked for where pseudo labels are judged by them, and nowhere else."""
    return "if there" if config.trainer.pseudo_label_quality else False


def read_list(list_file: Path, root: Path, *, labels: Labels) -> tuple[Sample, ...]:
    """Read a split list: on every line an image path, a space and a label path, both below ``root``.

    With ``labels`` false the label path may be missing and is not looked at; with "if there" it is left out where no
    such file is.
    """
    samples, missing = [], []
    for number, (image, label) in _pairs(list_file, root):
        if labels is not True:
            label = label if labels and label is not None and label.is_file() else None
        elif label is None:
            raise UsageError(f"{list_file}, line {number}: no label path; write <image path> <label path>.")
        paths = (image,) if label is None else (image, label)
        for path in paths:
            if ".." in path.relative_to(root).parts:
                raise UsageError(f"{list_file}, line {number}: {path} leads out of {root}. Name files below that.")
        missing += [str(path) for path in paths if not path.is_file()]
        samples.append(Sample(image.stem, image, label))
    if missing:
        raise UsageError(f"{list_file}: {are_missing('file', missing)}. Put what is missing there or mend the list.")
    if not samples:
        raise UsageError(f"{list_file}: lists no image.")
    refuse_repeated((sample.image for sample in samples), f"{list_file}")
    return tuple(samples)


def listed_ids(list_file: Path, root: Path) -> set[str]:
    """The ids in a split list, whether their files are there or not."""
    return {image.stem for _, (image, _) in _pairs(list_file, root)}


def _pairs(list_file: Path, root: Path) -> Iterator[tuple[int, tuple[Path, Path | None]]]:
    for number, line in enumerate(read_text(list_file, "this list").split("\n"), start=1):
        if line.strip():
            yield number, _split_line(line.strip(), root)


def _split_line(line: str, root: Path) -> tuple[Path, Path | None]:
    def below(text: str) -> Path:
        return root / text.strip().lstrip("/")

    cuts: list[tuple[Path, Path | None]] = [
        (below(line[:at]), below(line[at:])) for at, letter in enumerate(line) if letter.isspace()
    ]
    # Names may have spaces: the cut that leads to both files, or else to the image; the label may be left out.
    return max([*cuts, (below(line), None)], key=lambda cut: [path is not None and path.is_file() for path in cut])


def choose_labelled(ids: Iterable[str], n_labelled: int, seed: int) -> tuple[list[str], list[str]]:
    """Split a pool into ``n_labelled`` labelled ids and the rest.

    The order is that of a hash of seed and id, so the split is the same on every machine and rank, and the
    smaller labelled sets are prefixes of the larger ones.
    """
    order = sorted(ids, key=lambda id_: hashlib.sha256(os.fsencode(f"{seed}:{id_}")).digest())
    if n_labelled > len(order):
        raise UsageError(
            f"n_labeled_examples is {n_labelled}, but the training pool holds {len(order)} images with masks; "
            f"set it to at most {len(order)}."
        )
    return order[:n_labelled], order[n_labelled:]


def read_ids(list_file: Path, what: str) -> list[str]:
    """The image ids of a file that lists one a line."""
    ids = [line.strip() for line in read_text(list_file, what).split("\n") if line.strip()]
    if not ids:
        raise UsageError(f"{list_file}: {what} is empty; write one image id a line.")
    refuse_repeated(ids, f"{list_file}")
    return ids


def read_or_choose(
    lists: Path,
    root: Path,
    config: Config,
    *,
    choose: Callable[[int, int], tuple[list[str], list[str]]],
    samples: Callable[..., tuple[Sample, ...]],
) -> tuple[LazySamples, LazySamples]:
    """Labelled and unlabelled samples: from the list files in ``lists`` where they are there, else by seed."""
    files = [lists / f"{config.n_labeled_examples}_train_{kind}.txt" for kind in ("supervised", "unsupervised")]

    @cache
    def chosen() -> tuple[list[str], list[str]]:
        return choose(config.n_labeled_examples, config.datalist)

    def look_up(which: int, labels: Labels) -> tuple[Sample, ...]:
        there = [file.is_file() for file in files]
        if all(there):
            listed = read_list(files[which], root, labels=labels)
            if which == 0 and len(listed) != config.n_labeled_examples:
                raise UsageError(
                    f"{files[0]}: lists {len(listed):,} images, but its name says {config.n_labeled_examples:,}, as "
                    "n_labeled_examples does. Mend the list, or rename it and set n_labeled_examples."
                )
            return listed
        if any(there):
            missing, other = files[there.index(False)], files[there.index(True)]
            raise UsageError(f"{missing}: this list is missing while {other.name} is there; both or none are needed.")
        return samples(chosen()[which], labels=labels)

    return LazySamples(lambda: look_up(0, True)), LazySamples(lambda: look_up(1, labels_of_unlabelled(config)))
