"""Stage 3: features and labels of the labelled images → subclass maps (docs/method.md section 7).

Every process reads its share of the images and keeps only their samples; sizes and sums travel. The number of
processes changes the result no more than the order of summation does.
"""

import hashlib
import json
import shutil
import time
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from dataloaders.sets.description import SegmentationData
from trainer.balanced_kmeans import BalancedKMeans, fit_distributed
from trainer.subclasses.counts import fillable_counts, subclass_counts
from trainer.subclasses.features import features_dir
from trainer.subclasses.picture import save_subclass_picture
from trainer.subclasses.samples import ClassSamples, ImageSamples
from trainer.subclasses.table import FINISHED_CLASSES, PICTURE, TABLE, SubclassTable, maps_fingerprint
from utils.config import Config
from utils.distributed import all_sum, barrier, failing_together, gather, is_main, rank, share
from utils.errors import some
from utils.files import write_atomically, write_whole
from utils.logger import log, progress


def make_subclasses(
    config: Config, data: SegmentationData, device: torch.device, checkpoint: str = ""
) -> SubclassTable:
    """Cluster every class's pixel features and write the subclass maps, ``subclasses.json`` and a picture of it.

    Parameters
    ----------
    checkpoint
        Fingerprint of the baseline that the features come from, for ``subclasses.json``.
    """
    started = time.monotonic()
    _warn_of_other_features(config, data)
    with failing_together():
        bar = progress(share(data.labelled), desc="labels", unit="image")
        images = [ImageSamples(sample, config, data) for sample in bar]
    here = sum((image.per_class for image in images), np.zeros(len(data.classes), np.int64))
    per_class = _over_processes(here, device)
    wanted = subclass_counts(config, per_class)
    counts = fillable_counts(wanted, per_class)
    for name, there, count, asked in zip(data.classes, per_class, counts, wanted, strict=True):
        if count < asked and there:
            log.warning(f"class {name}: {there} samples can fill {there} of {asked} subclasses")

    sizes, inertia = [], []
    finished = _FinishedClasses(config, images)
    results = {index: finished.get(index, count, here[index]) for index, count in enumerate(counts) if count > 1}
    to_read = [index for index, result in results.items() if result is None]
    samples = ClassSamples(images, to_read, np.max(gather(here), axis=0), config.model.out_dim)
    for index, (name, count) in enumerate(zip(data.classes, counts, strict=True)):
        title = f"{name}: {per_class[index]} samples in {count} subclasses"
        result = results.get(index)
        if result is None:
            result = _cluster(config, samples, index, count, device, title)
            if count > 1:
                finished.keep(index, count, result)
        labels, error = result
        sizes += _over_processes(np.bincount(labels, minlength=count), device).tolist()
        inertia.append(error)
        for image in images:
            of_image, labels = np.split(labels, [image.per_class[index]])
            image.assign(index, sum(counts[:index]) + of_image)
        if count > 1:
            log.info(f"{title}, inertia {error:.6g}")

    table = SubclassTable(
        classes=list(data.classes),
        counts=counts,
        sizes=sizes,
        inertia=inertia,
        algorithm=config.clustering_algorithm,
        seed=config.random_seed,
        source=str(features_dir(config)),
        checkpoint=checkpoint,
        wanted={name: asked for name, asked, count in zip(data.classes, wanted, counts, strict=True) if asked != count},
        made_from=data.fingerprints("labelled"),
        seconds=round(time.monotonic() - started, 2),
    )
    table = _write(config.subclass_dir, table, images, data)
    finished.clear()
    return table


def _cluster(
    config: Config, samples: ClassSamples, index: int, n_clusters: int, device: torch.device, title: str
) -> tuple[np.ndarray, float]:
    """Cluster of every sample that this process has of a class, in order, and the inertia over all processes.

    Plain k-means is the same algorithm without balance: all that is asked of a cluster is not to be empty.
    """
    if n_clusters == 1:
        return np.zeros(sum(image.per_class[index] for image in samples.images), np.int32), 0.0
    size_min = None if config.clustering_algorithm == "balanced_kmeans" else 1
    estimator = BalancedKMeans(n_clusters, size_min=size_min, random_state=config.random_seed, device=device)
    with progress(desc=title, unit="it") as bar:

        def show(iteration: int, inertia: float) -> None:
            bar.set_postfix(inertia=f"{inertia:.4g}", refresh=False)
            bar.update()

        fit_distributed(estimator, samples.take(index), on_iteration=show)
    return estimator.labels_, estimator.inertia_


def _write(folder: Path, table: SubclassTable, images: list[ImageSamples], data: SegmentationData) -> SubclassTable:
    """Maps by every process; then, by the first one, the picture and the table: with it there, all is complete.

    Returned is the table with the fingerprint of the maps.
    """
    if is_main():
        (folder / TABLE).unlink(missing_ok=True)
    barrier()
    for image in images:
        image.save_map(folder, table.n_subclasses)
    barrier()
    table = replace(table, maps=maps_fingerprint(folder, data))
    if is_main():
        save_subclass_picture(folder / PICTURE, table)
        text = json.dumps(asdict(table), indent=1)
        write_whole(folder / TABLE, text)
    barrier()
    return table


class _FinishedClasses:
    """Clusters of the classes that are done, so that an interrupted stage 3 goes on at the class it was at.

    Every process keeps those of its own samples. Another number of processes, another feature or another label starts
    over.
    """

    def __init__(self, config: Config, images: list[ImageSamples]):
        self.folder = config.subclass_dir / FINISHED_CLASSES
        files = [(str(path), path.stat().st_mtime_ns) for image in images for path in (image.path, image.sample.mask)]
        made_from = [gather(files), config.clustering_algorithm, config.random_seed, config.ignore_index]
        self.key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]

    def _path(self, index: int, n_clusters: int) -> Path:
        return self.folder / f"{self.key}_{index}_{n_clusters}_{rank()}.npz"

    def get(self, index: int, n_clusters: int, n_samples: int) -> tuple[np.ndarray, float] | None:
        """Cluster of each of this process's samples, and the inertia; None where the class is to be clustered."""
        try:
            with np.load(self._path(index, n_clusters), allow_pickle=False) as contents:
                result = contents["labels"], float(contents["inertia"])
            if result[0].shape != (n_samples,) or not np.isin(result[0], np.arange(n_clusters)).all():
                raise ValueError("these are no clusters of these samples")
        # Not there, or damaged: the class is clustered again.
        except (OSError, ValueError, TypeError, KeyError, EOFError, MemoryError, zipfile.BadZipFile):
            result = None
        return result if all(gather(result is not None)) else None

    def keep(self, index: int, n_clusters: int, result: tuple[np.ndarray, float]) -> None:
        labels, inertia = result
        write_atomically(self._path(index, n_clusters), lambda file: np.savez(file, labels=labels, inertia=inertia))

    def clear(self) -> None:
        if is_main():
            shutil.rmtree(self.folder, ignore_errors=True)  # where every class is one subclass, it is not there


def _warn_of_other_features(config: Config, data: SegmentationData) -> None:
    """Name the features that belong to no labelled image: the split has changed since, or an image or mask is gone."""
    labelled = {f"{sample.id}.npy" for sample in data.labelled}
    others = sorted({path.name for path in features_dir(config).glob("*.npy")} - labelled)
    if others:
        log.warning(
            f"{features_dir(config)}: {len(others)} features belong to no labelled image and are left out: "
            f"{some(others)}"
        )


def _over_processes(counts: np.ndarray, device: torch.device) -> np.ndarray:
    """Sum of an integer array of every process."""
    return all_sum(torch.tensor(counts, device=device)).cpu().numpy()
