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

    ``spare`` are those whose masks ``--labelled`` leaves out; ``by_folder`` is whether a folder says the validation;
    ``folds`` are those in which each image is for validation once, ``validation`` being the first of them.
    """

    labelled: list[str]
    validation: list[str]
    spare: list[str]
    by_folder: bool
    folds: list[list[str]] | None = None


def split_masked(classes_of: dict[str, set[int]], n_labelled: int | None = None, n_folds: int | None = None) -> Split:
    """Split the images that have masks.

    A fifth, rounded, is for validation; or the images of a top folder ``val``, ``valid`` or ``validation`` where one
    has masks. The order is that of a hash of the id, images with classes that are still missing first.

    Parameters
    ----------
    classes_of
        Classes that occur in the mask of every image.
    n_labelled
        Masks to train with; None takes all that validation leaves.
    n_folds
        Divide the images into so many folds, whose sizes differ by one at most; validation is the first.

    Raises
    ------
    UsageError
        There are too few masks.
    """
    order = _covering_order(classes_of)
    validation = [id_ for id_ in order if "__" in id_ and id_.split("__")[0].lower() in VALIDATION_FOLDERS]
    by_folder = bool(validation)
    folds = None
    if n_folds:
        if by_folder:
            raise UsageError(
                f"--folds: the folder {validation[0].split('__')[0]} says which images are for validation. Leave "
                "--folds out, or give that folder another name."
            )
        folds = make_folds(classes_of, n_folds)
        validation = folds[0]
    elif not by_folder:
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
    return Split(sorted(training[:n_labelled]), sorted(validation), sorted(training[n_labelled:]), by_folder, folds)


def make_folds(classes_of: dict[str, set[int]], count: int) -> list[list[str]]:
    """Divide images into folds of one size, but for one image, each class spread over them as evenly as may be.

    The images of the rarest classes go first, each to the fold that has the fewest images of its classes, a rare class
    weighing more (after the iterative stratification of Sechidis et al., ECML PKDD 2011).

    Raises
    ------
    UsageError
        There are too few images.
    """
    most = -(-len(classes_of) // count)
    if count > len(classes_of) or len(classes_of) - most < 2:
        raise UsageError(f"--folds {count}: {len(classes_of)} images have masks, too few for so many folds.")
    n_large = len(classes_of) - (most - 1) * count
    room = [most] * n_large + [most - 1] * (count - n_large)
    images_with = Counter(class_ for classes in classes_of.values() for class_ in classes)
    folds: list[list[str]] = [[] for _ in range(count)]
    there = [Counter[int]() for _ in range(count)]

    def rarest(id_: str) -> tuple[int, bytes]:
        return min((images_with[class_] for class_ in classes_of[id_]), default=len(classes_of)), _hash(id_)

    for id_ in sorted(classes_of, key=rarest):
        fold = min(
            (fold for fold in range(count) if len(folds[fold]) < room[fold]),
            key=lambda fold: (
                sum(there[fold][class_] / images_with[class_] for class_ in classes_of[id_]),
                len(folds[fold]),
            ),
        )
        folds[fold].append(id_)
        there[fold].update(classes_of[id_])
    return [sorted(fold) for fold in folds]


def _covering_order(classes_of: dict[str, set[int]]) -> list[str]:
    """All ids by hash, but before them, for each class from the rarest on that is not there yet, one with it."""
    ids = sorted(classes_of, key=_hash)
    images_with = Counter(class_ for classes in classes_of.values() for class_ in classes)
    first: list[str] = []
    covered: set[int] = set()
    for class_ in sorted(images_with, key=lambda class_: (images_with[class_], class_)):
        if class_ not in covered:
            first.append(next(id_ for id_ in ids if class_ in classes_of[id_]))
            covered |= classes_of[first[-1]]
    return first + [id_ for id_ in ids if id_ not in set(first)]


def _hash(id_: str) -> bytes:
    return hashlib.sha256(id_.encode()).digest()


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
