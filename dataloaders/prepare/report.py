"""What a preparation found and did, as the table that it ends with."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dataloaders.mask_file import IGNORE_INDEX

_SHOWN = 20
_NAMES = {"train": "training pool", "val": "validation"}


@dataclass
class Outcome:
    """What became of one image and its mask.

    Attributes
    ----------
    split
        ``"train"`` or ``"val"``.
    actions
        What was done, e.g. ``["linked", "written"]``; ``"kept"`` where nothing was to do.
    pixels
        int64 (256,), pixels of every mask value; None where the image has no good mask.
    problems
        What is missing or unreadable, as ``<path>: <reason>``.
    """

    split: str
    actions: list[str] = field(default_factory=list)
    pixels: np.ndarray | None = None
    problems: list[str] = field(default_factory=list)


@dataclass
class Report:
    """The result of a preparation or of a check; ``expected`` counts the images of every split."""

    title: str
    root: Path
    classes: Sequence[str]
    expected: dict[str, int]
    checked_only: bool = False
    found: Counter = field(default_factory=Counter)
    actions: Counter = field(default_factory=Counter)
    pixels: dict[str, np.ndarray] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Count outcomes in."""
        for outcome in outcomes:
            self.actions.update(outcome.actions)
            self.problems.extend(outcome.problems)
            if outcome.pixels is not None:
                self.found[outcome.split] += 1
                self.pixels[outcome.split] = self.pixels.get(outcome.split, 0) + outcome.pixels

    def text(self) -> str:
        """The table: problems, counts, class pixel shares, warnings."""
        return "\n".join([*self._problem_lines(), *self._count_lines(), *self._class_lines()])

    def _problem_lines(self) -> list[str]:
        if not self.problems:
            return []
        shown = self.problems if self.checked_only else self.problems[:_SHOWN]
        rest = len(self.problems) - len(shown)
        more = [f"  and {rest:,} more; --check lists them all"] if rest else []
        return [f"missing or unreadable: {len(self.problems):,}", *(f"  {line}" for line in shown), *more, ""]

    def _count_lines(self) -> list[str]:
        lines = [f"{self.title} in {self.root}", f"{'':16}{'found':>9}{'expected':>10}"]
        warnings = list(self.warnings)
        for split, expected in self.expected.items():
            found = self.found[split]
            lines.append(f"{_NAMES[split]:16}{found:>9,}{expected:>10,}")
            if found != expected:
                warnings.append(f"{_NAMES[split]}: {found:,} images, the full data set has {expected:,}")
        done = ", ".join(f"{count:,} {action}" for action, count in sorted(self.actions.items()))
        if done and not self.checked_only:
            lines.append(f"files: {done}")
        return [*lines, *(f"warning: {line}" for line in warnings)]

    def _class_lines(self) -> list[str]:
        if not self.pixels:
            return []
        splits = [split for split in self.expected if split in self.pixels]
        heads = "".join(f"{_NAMES[split]:>16}" for split in splits)
        lines = ["", f"{'share of pixels':18}{heads}"]
        for index, name in [*enumerate(self.classes), (IGNORE_INDEX, "(ignored)")]:
            lines.append(f"{name:18}" + "".join(f"{self._share(split, index):>14.2f} %" for split in splits))
        return lines

    def _share(self, split: str, index: int) -> float:
        """Percent of a split's labelled pixels; of all its pixels for the ignored ones."""
        pixels = self.pixels[split]
        of = pixels.sum() if index == IGNORE_INDEX else pixels[: len(self.classes)].sum()
        return 100 * pixels[index] / max(of, 1)
