"""Whether a mask value is a class: what the numbers of a data set say of 255 and of stray values."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

FEW_IDS = 3
"""Up to so many other values, ids that begin at 0 without a gap may be chance."""
_LARGE = {True: 0.1, False: 0.5}  # beyond which share of the pixels 255 is large, beside few ids or beside many
_NOISE_SHARE, _NOISE_SOLID, _NOISE_FACTOR, _NEAR = 0.005, 0.2, 5, 16


@dataclass(frozen=True)
class MaskStatistics:
    """What is counted of one mask.

    Attributes
    ----------
    pixels
        Pixels of every value.
    solid
        Those of them whose eight neighbours have the same value.
    lines
        Pixels of the value in question on lines between other values: two others lie within a few pixels.
    """

    pixels: Mapping[int, int]
    solid: Mapping[int, int] = field(default_factory=dict)
    lines: int = 0


@dataclass(frozen=True)
class Verdict:
    """``what`` becomes of a value, ``reason`` in words; ``twin`` is a value that means the same class."""

    what: Literal["ignore", "class", "ask"]
    reason: str
    twin: int | None = None


def judge(value: int, masks: Sequence[MaskStatistics]) -> Verdict:
    """Whether ``value``, 255 or the greatest of 16 bit, stands for pixels without a class.

    For "ignore" speak: it draws lines between classes (half of its pixels and more); or the other values are ids that
    begin at 0 or 1 without a gap and end far below it. For "class" speak: it is the only value beside one other; its
    values are levels, evenly spaced or far apart; it never shares a mask with the others beside the background; it is
    large (10 % of all pixels beside up to three ids, 50 % beside more). Where both or neither speak: "ask".
    """
    total = sum((Counter(mask.pixels) for mask in masks), Counter())
    others = sorted(set(total) - {value})
    if len(others) <= 1:
        other = "transparent pixels" if others[:1] == [-1] else str(others[0]) if others else "nothing else"
        return Verdict("class", f"the masks hold {other} and {value} only")
    if others[-1] > value:
        return Verdict("class", f"ids go on beyond it, to {others[-1]}")
    share, lines = total[value] / total.total(), sum(mask.lines for mask in masks) / total[value]
    steps = [after - before for before, after in zip(others, others[1:], strict=False)]
    dense = others[0] in (0, 1) and max(steps) == 1 and value - others[-1] > 8 * len(others)
    beside = [set(mask.pixels) - {value} for mask in masks if value in mask.pixels]
    background = set().union(*beside)
    alone = len(background) <= 1
    rest = [other for other in others if other not in background]
    ignore, class_ = [], []
    if lines >= 0.5:
        ignore.append(f"{lines:.0%} of its pixels are lines between other values")
    if dense:
        ignore.append(f"the other values are the ids {others[0]} to {others[-1]} without a gap")
    elif _evenly_spaced([*others, value]):
        class_.append("the values are evenly spaced levels up to it")
    elif value - others[-1] < 8 * max(steps) and not lines >= 0.5:
        class_.append("the values are far apart, as levels are and ids are not")
    if alone:
        class_.append(f"it never shares a mask with {_few(rest)}")
    if share > (0.5 if lines >= 0.5 else _LARGE[len(others) <= FEW_IDS]):
        class_.append(f"it covers {share:.1%} of the pixels")
    if alone and others in ([0, 1], [1]) and lines < 0.5:
        return Verdict("class", f"1 and {value} never share a mask: two ways to write one class", twin=1)
    if ignore and not class_:
        return Verdict("ignore", " and ".join(ignore))
    if class_ and not ignore:
        return Verdict("class", " and ".join(class_))
    if not ignore:
        return Verdict("ask", f"it covers {share:.2%} of the pixels, and nothing says what it is")
    return Verdict("ask", f"{' and '.join(ignore)}, but {' and '.join(class_)}")


def main_values(masks: Sequence[MaskStatistics], by_colour: bool) -> list[int] | None:
    """The values that are meant, where the others come of compression or smoothing; None where none do.

    Such a value covers little and forms no areas: few of its pixels have eight neighbours of the same value. It has
    less than 0.5 % of all pixels, or lies near a value that has five times as many. Many such values (four, and twice
    as many as the others) are noise; so is a single one that hugs another value and is too large to be the next id.
    """
    pixels = sum((Counter(mask.pixels) for mask in masks), Counter())
    solid = sum((Counter(mask.solid) for mask in masks), Counter())
    total = pixels.total()
    loose = [value for value in pixels if value >= 0 and solid[value] < _NOISE_SOLID * pixels[value]]
    strong = [value for value, _ in pixels.most_common(64)]

    def near(one: int, other: int, most: int) -> bool:
        return distance(one, other, by_colour) <= most

    noise = {
        value
        for value in loose
        if pixels[value] < _NOISE_SHARE * total
        or any(pixels[other] > _NOISE_FACTOR * pixels[value] and near(value, other, _NEAR) for other in strong)
    }
    mains = sorted(set(pixels) - noise)
    ids = 2 * len(mains)
    # Clipping leaves two values where one was, such as 254 and 255, each with areas.
    noise |= {
        value
        for value in mains
        if value > ids
        and any(pixels[one] > pixels[value] and 0 < distance(value, one, by_colour) <= 4 for one in mains)
    }
    mains = sorted(set(pixels) - noise)
    if len(mains) < 2 or sum(pixels[value] for value in noise) > 0.2 * total:
        return None
    hugging = [
        value for value in noise if value > ids and any(0 < distance(value, one, by_colour) <= 4 for one in mains)
    ]
    many = len(noise) >= max(4, 2 * len(mains))
    return mains if many or hugging else None


def distance(one: int, other: int, by_colour: bool) -> int:
    """The difference of two values, or the greatest one of the bands of two colours."""
    if not by_colour or min(one, other) < 0:
        return abs(one - other)
    return max(abs((one >> shift & 0xFF) - (other >> shift & 0xFF)) for shift in (16, 8, 0))


def _evenly_spaced(values: Sequence[int]) -> bool:
    """Whether all are multiples of one step that divides the greatest, to within rounding, and most of them occur."""
    for steps in range(2, min(2 * len(values), 17) + 1):
        levels = {round(value * steps / values[-1]) for value in values}
        if len(levels) == len(values) and all(
            abs(value - round(value * steps / values[-1]) * values[-1] / steps) <= 1 for value in values
        ):
            return True
    return False


def _few(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:8])) + (f" and {len(values) - 8} more" if len(values) > 8 else "")
