"""Which masked images are for validation and which for training; deterministic, every class in both where possible."""

import hashlib
from collections import Counter
from dataclasses import dataclass

from utils.errors import UsageError

VALIDATION_SHARE = 0.2
VALIDATION_FOLDERS = ("val", "valid", "validation")
MIN_MASKED = 4  # one for validation; fewer than three labelled images teach nothing


@dataclass(frozen=True)
class Split:
    """Ids of the images that have masks.

    ``spare`` are those whose masks ``--labelled`` leaves out; ``by_folder`` is whether a folder says the validation.
    """

    labelled: list[str]
    validation: list[str]
    spare: list[str]
    by_folder: bool


def split_masked(classes_of: dict[str, set[int]], n_labelled: int | None = None) -> Split:
    """Split the images that have masks.

    A fifth, rounded, is for validation; or the images of a top folder ``val``, ``valid`` or ``validation`` where one
    has masks. The order is that of a hash of the id, images with classes that are still missing first.

    Parameters
    ----------
    classes_of
        Classes that occur in the mask of every image.
    n_labelled
        Masks to train with; None takes all that validation leaves.

    Raises
    ------
    UsageError
        There are too few masks.
    """
    order = _covering_order(classes_of)
    validation = [id_ for id_ in order if "__" in id_ and id_.split("__")[0].lower() in VALIDATION_FOLDERS]
    by_folder = bool(validation)
    if not by_folder:
        if len(order) < MIN_MASKED:
            raise UsageError(
                f"only {len(order)} images have masks: too few for a labelled and a validation split; at least "
                f"{MIN_MASKED} are needed."
            )
        validation = _hold_out(order, classes_of, max(1, round(VALIDATION_SHARE * len(order))))
    held_out = set(validation)
    rest = {id_: classes for id_, classes in classes_of.items() if id_ not in held_out}
    if len(rest) < max(2, n_labelled or 0):
        raise UsageError(
            f"{len(rest)} masks are left for training beside the {len(validation)} for validation; "
            f"{f'--labelled {n_labelled} asks for more' if n_labelled else 'at least 2 are needed'}."
        )
    training = _covering_order(rest)
    n_labelled = n_labelled or len(training)
    return Split(sorted(training[:n_labelled]), sorted(validation), sorted(training[n_labelled:]), by_folder)


def _covering_order(classes_of: dict[str, set[int]]) -> list[str]:
    """All ids by hash, but before them, for each class from the rarest on that is not there yet, one with it."""
    ids = sorted(classes_of, key=lambda id_: hashlib.sha256(id_.encode()).digest())
    images_with = Counter(class_ for classes in classes_of.values() for class_ in classes)
    first: list[str] = []
    covered: set[int] = set()
    for class_ in sorted(images_with, key=lambda class_: (images_with[class_], class_)):
        if class_ not in covered:
            first.append(next(id_ for id_ in ids if class_ in classes_of[id_]))
            covered |= classes_of[first[-1]]
    return first + [id_ for id_ in ids if id_ not in set(first)]


def _hold_out(order: list[str], classes_of: dict[str, set[int]], count: int) -> list[str]:
    """The first ``count`` of the order, but none that is the last image left with one of its classes."""
    left = Counter(class_ for classes in classes_of.values() for class_ in classes)
    taken: list[str] = []
    for id_ in order:
        if len(taken) < count and all(left[class_] > 1 for class_ in classes_of[id_]):
            taken.append(id_)
            left.subtract(classes_of[id_])
    # Where every image is the only one with some class, validation has to take from the end.
    return taken or order[-count:]
