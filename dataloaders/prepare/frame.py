"""What every preparation has around its own work: a check that changes nothing, a lock, a sweep, processes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from dataloaders.prepare.report import Outcome, Report
from utils.files import sweep
from utils.lock import sole_use
from utils.parallel import for_each

Job = TypeVar("Job")


def check_or_fill(
    report: Report,
    root: Path,
    *,
    wanted: Sequence[Path],
    swept: Sequence[Path],
    bring_in: Callable[[], None],
    jobs: Callable[[], Sequence[Job]],
    work: Callable[[Job], Outcome],
    workers: int,
) -> Report:
    """Do the work on every image, for a check or, while nobody else may, for a preparation; the report.

    Parameters
    ----------
    wanted
        Files and folders that a check misses where they are not there.
    swept
        Folders in which an interrupted preparation leaves unfinished files.
    bring_in
        Fetches and unpacks; not for a check.
    jobs
        What there is to do, once all is brought in.
    work
        One job done, in any process.
    """
    if report.checked_only:
        report.problems += [f"{path}: missing" for path in wanted if not path.exists()]
        report.add(for_each(work, jobs(), workers=workers, label="checking"))
        return report
    with sole_use(root):
        sweep(*swept)
        bring_in()
        report.add(for_each(work, jobs(), workers=workers, label="images and masks"))
    return report
