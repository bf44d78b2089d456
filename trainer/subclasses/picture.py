"""A picture of what balancing does: samples per class before, per subclass after."""

import io
from pathlib import Path

import numpy as np

from trainer.subclasses.table import SubclassTable
from utils.files import write_whole


def save_subclass_picture(path: Path, table: SubclassTable) -> None:
    """Write two bar charts on one logarithmic scale, a colour a class."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    owners = table.class_of_subclass.numpy()
    sizes = np.asarray(table.sizes)
    per_class = np.bincount(owners, weights=sizes, minlength=len(table.classes))
    colours = plt.get_cmap("tab20")(np.arange(len(table.classes)) % 20)

    buffer = io.BytesIO()
    with matplotlib.rc_context({"text.parse_math": False}):  # a dollar in a class name is a dollar
        figure, (before, after) = plt.subplots(1, 2, figsize=(12, 4.5), sharey=True, layout="constrained")
        before.bar(range(len(per_class)), np.maximum(per_class, 0.5), color=colours)
        before.set_xticks(range(len(per_class)), table.classes, rotation=60, ha="right")
        before.set(yscale="log", ylabel="samples", title=f"{len(per_class)} classes")
        after.bar(range(len(sizes)), np.maximum(sizes, 0.5), width=1.0, color=colours[owners])
        after.set(xlabel="subclass", title=f"{len(sizes)} subclasses ({table.algorithm})")
        figure.savefig(buffer, format="png", dpi=100)
        plt.close(figure)
    write_whole(path, buffer.getvalue())
