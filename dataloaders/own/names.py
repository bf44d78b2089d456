"""Which mask is whose, by names alone: the longest part that the names of a mask and of an image have in common.

What stands around that part (``_mask``, ``_1stHO``, ``labels/``) is the mask's affix. An affix counts where many masks
share it, so that a chance likeness pairs nothing.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from utils.errors import UsageError

MASK_ENDING = re.compile(r"(?:^|[-_])(masks?|gt|labels?|seg|segmentation)$", re.IGNORECASE)
_TOKENS = re.compile(r"[^\W\d_]+|\d+|[\W_]")
COUNTER = re.compile(r"[-_. ]?\(?\d+\)?$")
_IMAGE_ENDING = re.compile(r"(?:[-_. ](?=[^\W_]*[^\W\d_])[^\W_]+|(?<=\d)[^\W\d_]+)$")
_IMAGE_BEGINNING = re.compile(r"^(?:[^\W_]*[^\W\d_][^\W_]*[-_. ]|[^\W\d_]+(?=\d))")
_LONGEST = 24  # tokens of a name that are looked at


@dataclass(frozen=True)
class Affix:
    """What a mask's path has around the name of its image, which is that of the file (``level`` 0) or of a folder."""

    level: int
    before: str
    after: str
    inside: str
    """Path below the folder that is named like the image."""

    @property
    def kind(self) -> "Affix":
        """The affix without the number at its end: ``_mask_1`` and ``_mask`` are of one kind."""
        return Affix(self.level, self.before, COUNTER.sub("", self.after), self.inside)

    @property
    def is_common(self) -> bool:
        """Whether it is none, or one that masks have everywhere."""
        return not (self.before or self.after or self.inside) or bool(MASK_ENDING.search(self.inside or self.after))


def match_names(images: list[PurePosixPath], masks: list[PurePosixPath]) -> dict[int, list[int]]:
    """The masks of every image that has some, as positions in the lists of paths (below the two folders).

    Several masks of one image lie in one folder and differ by a number at the end of their names.

    Raises
    ------
    UsageError
        Masks that are no such series claim one image.
    """
    found = _exact(images, masks)
    others = [at for at in range(len(masks)) if at not in found]
    best: dict[int, tuple[int, Affix]] = {}
    for ending, beginning in ((None, None), (_IMAGE_ENDING, None), (None, _IMAGE_BEGINNING),
                              (_IMAGE_ENDING, _IMAGE_BEGINNING)):  # fmt: skip
        names = _without_common([path.stem for path in images], ending, beginning)
        pairs = _by_affix(images, names, masks, others, {image for image, _ in found.values()})
        best = max(best, pairs, key=len)
        if len(found) + len(best) >= len(masks) / 2:
            break
    masks_of: dict[int, list[tuple[int, Affix]]] = defaultdict(list)
    for mask, (image, affix) in sorted((found | best).items()):
        masks_of[image].append((mask, affix))
    return {image: _one_series(images[image], masks, claims) for image, claims in masks_of.items()}


def _exact(images: list[PurePosixPath], masks: list[PurePosixPath]) -> dict[int, tuple[int, Affix]]:
    """Masks with the path of an image, whose suffix may have stayed (``a.jpg.png``)."""
    at = {path.with_suffix(""): index for index, path in enumerate(images)}
    at |= {path: index for index, path in enumerate(images)}
    return {
        index: (at[path.with_suffix("")], Affix(0, "", "", ""))
        for index, path in enumerate(masks)
        if path.with_suffix("") in at
    }


def _without_common(stems: list[str], ending: re.Pattern | None, beginning: re.Pattern | None) -> list[str]:
    """The names without the ending and the beginning that most of them share."""
    for pattern in (ending, beginning):
        if pattern is None:
            continue
        parts = [(found := pattern.search(stem)) and found[0] for stem in stems]
        common, count = Counter(parts).most_common(1)[0]
        if common is not None and count > len(stems) / 2:
            stems = [
                pattern.sub("", stem) if part == common and part != stem else stem
                for stem, part in zip(stems, parts, strict=True)
            ]
    return stems


def _by_affix(
    images: list[PurePosixPath],
    names: list[str],
    masks: list[PurePosixPath],
    others: list[int],
    claimed: set[int],
) -> dict[int, tuple[int, Affix]]:
    """Masks whose paths hold the name of an image, between affixes that count."""
    images_of: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        images_of[name].append(index)
    candidates = {mask: list(_candidates(images_of, images, masks[mask])) for mask in others}
    votes = Counter(kind for found in candidates.values() for kind in {affix.kind for _, affix, _ in found})
    most = max(votes.values(), default=0)
    pairs = {}
    for mask, found in candidates.items():
        if not found:
            continue
        length, affix, image = max(found, key=lambda one: (votes[one[1].kind], one[0]))
        count = votes[affix.kind]
        # A rare affix pairs nothing; but where the image has a mask, the likeness has to be a mistake or a second mask.
        if affix.is_common or affix.kind.is_common or count == most or count >= max(2, most / 10) or image in claimed:
            pairs[mask] = (image, affix)
    return pairs


def _candidates(
    images_of: dict[str, list[int]], images: list[PurePosixPath], mask: PurePosixPath
) -> Iterator[tuple[int, Affix, int]]:
    """Length of the common part, affix and image, for every image whose name is part of the mask's path."""
    parts = [*mask.parts[:-1], mask.stem]
    for level, part in enumerate(reversed(parts)):
        tokens = _TOKENS.findall(part)[:_LONGEST]
        ends = [0]
        for token in tokens:
            ends.append(ends[-1] + len(token))
        for first, start in enumerate(ends):
            for end in ends[first + 1 :]:
                found = images_of.get(part[start:end])
                image = _nearest(found, images, mask) if found else None
                if image is not None:
                    inside = "/".join(parts[len(parts) - level :])
                    yield end - start, Affix(level, part[:start], part[end:], inside), image


def _nearest(found: list[int], images: list[PurePosixPath], mask: PurePosixPath) -> int | None:
    """The one of images of one name whose folders the mask's folders name; None where that is not one."""
    if len(found) == 1:
        return found[0]
    folders = str(mask.parent).casefold()
    scores = [sum(part.casefold() in folders for part in images[index].parts[:-1]) for index in found]
    best = max(scores)
    return found[scores.index(best)] if scores.count(best) == 1 else None


def _one_series(image: PurePosixPath, masks: list[PurePosixPath], claims: list[tuple[int, Affix]]) -> list[int]:
    kinds = {(affix.kind, masks[mask].parent) for mask, affix in claims}
    if len(kinds) > 1:  # a folder for each image, as labelme exports: its label.png
        claims = [(mask, affix) for mask, affix in claims if affix.level and affix.is_common] or claims
        kinds = {(affix.kind, masks[mask].parent) for mask, affix in claims}
    if len(kinds) > 1 or len({masks[mask].with_suffix("") for mask, _ in claims}) < len(claims):
        names = " and ".join(str(masks[mask]) for mask, _ in claims[:2])
        raise UsageError(
            f"--masks: {names} stand for the same image, {image}. Move or rename one of them, and all of its kind. "
            "Masks whose names differ by a number at the end (a_mask.png, a_mask_1.png) are united."
        )
    return [mask for mask, _ in claims]
