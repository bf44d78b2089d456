"""The stages of a run in one table, from which the command line has its flags. Imports nothing that takes time."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Stage:
    """A stage of a run.

    Attributes
    ----------
    name
        Of its function in ``trainer/stages.py``, and of its flag.
    help
        What the flag's help says; "" where the stage has no flag: training, which is done without any.
    short
        The flag's short form in the original.
    value
        How argparse takes the flag's value; without it the flag is on or off.
    one_process
        Whether one process does it, whatever the devices; else each of them does its share.
    holds_run
        Whether it writes what others read in the run's folder, which is then its own until it ends. The others may
        run beside a training.
    writes_log
        Whether what it says goes to the run's log, too.
    """

    name: str
    help: str = ""
    short: str = field(default="", kw_only=True)
    value: dict[str, Any] = field(default_factory=dict)
    one_process: bool = False
    holds_run: bool = True
    writes_log: bool = True


_TABLE = (
    Stage("train"),
    Stage("test", "evaluate: IoU of every class, and a picture per validation image", short="-t"),
    Stage("save_feature", "stage 2: write the pixel features of the labelled images", short="-sf"),
    Stage("clustering", "stage 3: cluster them into subclasses"),
    Stage("summary", "print the baseline's scores beside this run's and where its files are", one_process=True),
    Stage(
        "check_data",
        "read every image and mask of the run once and list what is wrong; exit code 1 if any is",
        one_process=True,
        holds_run=False,
        writes_log=False,
    ),
    Stage(
        "plan",
        "say what the run will do, and how long and with how much memory; write nothing",
        one_process=True,
        holds_run=False,
        writes_log=False,
    ),
    Stage(
        "predict",
        "predict an image, the images of a folder, or those a .txt file names a line",
        {"metavar": "PATH"},
        holds_run=False,
    ),
    Stage(
        "export",
        "write the network for other programs",
        {"choices": ("onnx", "exported_program")},
        one_process=True,
        holds_run=False,
    ),
)
STAGES = {stage.name: stage for stage in _TABLE}
