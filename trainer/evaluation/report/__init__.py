"""``report.html``: a run on one page that needs nothing else, for a browser of any size."""

from trainer.evaluation.report.page import write_report

__all__ = ["write_report"]
