"""Stage 3: features and labels of the labelled images → subclass maps (docs/method.md section 7)."""

import hashlib
import io
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.cluster import KMeans

from dataloaders.description import Sample, SegmentationData
from dataloaders.reading import IGNORE, read_mask
from trainer.balanced_kmeans import BalancedKMeans
from trainer.features import features_dir
from trainer.subclass_counts import resize_nearest, subclass_counts
from trainer.subclass_picture import save_subclass_picture
from trainer.subclass_table import TABLE, SubclassTable
from utils.checkpoint import write_atomically
from utils.config import Config
from utils.errors import UsageError
from utils.logger import log, progress
from utils.palette import voc_palette


def make_subclasses(config: Config, data: SegmentationData, device: torch.device) -> SubclassTable:
    """Cluster every class's pixel features and write the subclass maps and ``subclasses.json``."""
    samples = data.labelled
    targets = [_Positions(sample, config, data) for sample in samples]
    per_class = sum(target.per_class(len(data.classes)) for target in targets)
    counts = subclass_counts(config, per_class)
    for index, (wanted, there) in enumerate(zip(counts, per_class, strict=True)):
        if there < wanted:
            counts[index] = max(1, int(there))
            if there:
                log.warning(f"class {data.classes[index]}: {there} samples can fill {there} of {wanted} subclasses")

    first = np.concatenate([[0], np.cumsum(counts)])
    maps = [np.full(target.classes.shape, IGNORE, np.int32) for target in targets]
    sizes, inertia = [], []
    finished = _FinishedClasses(config, targets)
    for index, name in enumerate(progress(data.classes, desc="clustering", unit="class")):
        clusters, error = finished.get(index, counts[index]) or finished.keep(
            index, counts[index], _cluster(config, targets, index, counts[index], int(per_class[index]), device)
        )
        at = 0
        for target, subclass_map in zip(targets, maps, strict=True):
            mine = target.classes == index
            subclass_map[mine] = first[index] + clusters[at : at + mine.sum()]
            at += mine.sum()
        sizes += np.bincount(clusters, minlength=counts[index]).tolist()
        inertia.append(error)
        if counts[index] > 1:
            log.info(f"{name}: {per_class[index]} samples in {counts[index]} subclasses, inertia {error:.6g}")

    table = SubclassTable(
        classes=list(data.classes),
        counts=counts,
        sizes=sizes,
        inertia=inertia,
        algorithm=config.clustering_algorithm,
        seed=config.random_seed,
        source=str(features_dir(config)),
    )
    folder = config.subclass_dir
    (folder / TABLE).unlink(missing_ok=True)  # it comes last: with it there, the maps are complete
    for target, subclass_map in zip(targets, maps, strict=True):
        _save_map(folder / target.sample.label.name, target.to_label_size(subclass_map), table.n_subclasses)
    save_subclass_picture(folder.parent / f"{folder.name}.png", table)
    text = json.dumps(asdict(table), indent=1)
    write_atomically(folder / TABLE, lambda file: file.write(text.encode()))
    finished.clear()
    return table


class _FinishedClasses:
    """Clusters of the classes that are done, so that an interrupted stage 3 goes on at the class it was at."""

    def __init__(self, config: Config, targets: list["_Positions"]):
        self.folder = config.subclass_dir / ".finished_classes"
        features = [(target.path.name, target.path.stat().st_mtime_ns) for target in targets]
        made_from = [features, config.clustering_algorithm, config.random_seed, config.ignore_index]
        self.key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:16]

    def _path(self, index: int, n_clusters: int) -> Path:
        return self.folder / f"{self.key}_{index}_{n_clusters}.npz"

    def get(self, index: int, n_clusters: int) -> tuple[np.ndarray, float] | None:
        if not self._path(index, n_clusters).is_file():
            return None
        with np.load(self._path(index, n_clusters), allow_pickle=False) as contents:
            return contents["clusters"], float(contents["inertia"])

    def keep(self, index: int, n_clusters: int, result: tuple[np.ndarray, float]) -> tuple[np.ndarray, float]:
        clusters, inertia = result
        write_atomically(self._path(index, n_clusters), lambda file: np.savez(file, clusters=clusters, inertia=inertia))
        return result

    def clear(self) -> None:
        shutil.rmtree(self.folder)


class _Positions:
    """The labelled positions of one image's feature: its classes, (h, w), and the feature file they belong to."""

    def __init__(self, sample: Sample, config: Config, data: SegmentationData):
        self.sample = sample
        self.path = features_dir(config) / f"{sample.id}.npy"
        if not self.path.is_file():
            raise UsageError(
                f"{self.path}: the feature of a labelled image is missing. Run stage 2: {features_command(config)}"
            )
        feature = self.feature()
        mask = read_mask(sample.label, len(data.classes), config.ignore_index, data.palette)
        if feature.ndim != 3 or feature.shape[0] != config.model.out_dim:
            raise UsageError(
                f"{self.path}: has the shape {feature.shape}, expected ({config.model.out_dim}, h, w). Run stage 2 "
                f"again: {features_command(config)} --force"
            )
        self.label_size = mask.shape
        self.classes = resize_nearest(mask, feature.shape[1:])

    def feature(self) -> np.ndarray:
        """float16 (out_dim, h, w), read from disk where it is used."""
        try:
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise UsageError(f"{self.path}: is no feature file ({error}). Run stage 2 again with --force.") from None

    def of_class(self, index: int) -> np.ndarray:
        """Features of one class's positions, (n, out_dim)."""
        found = self.feature()[:, self.classes == index].T
        if not np.isfinite(found).all():
            raise UsageError(
                f"{self.path}: holds values that are not finite; the baseline has diverged, or the file is damaged. "
                "Train stage 1 again with a lower learning rate, or run stage 2 again."
            )
        return found

    def per_class(self, n_classes: int) -> np.ndarray:
        return np.bincount(self.classes[self.classes != IGNORE], minlength=n_classes)

    def to_label_size(self, subclass_map: np.ndarray) -> np.ndarray:
        return resize_nearest(subclass_map, self.label_size)


def _cluster(
    config: Config, targets: list[_Positions], index: int, n_clusters: int, n_samples: int, device: torch.device
) -> tuple[np.ndarray, float]:
    """Cluster of every sample of a class, in the order of the images, and the inertia."""
    if n_clusters == 1:
        return np.zeros(n_samples, np.int64), 0.0
    samples = np.empty((n_samples, config.model.out_dim), np.float16)
    at = 0
    for target in targets:
        found = target.of_class(index)
        samples[at : at + len(found)] = found
        at += len(found)
    if config.clustering_algorithm == "balanced_kmeans":
        estimator = BalancedKMeans(n_clusters, random_state=config.random_seed, device=device)
    else:
        estimator = KMeans(n_clusters, n_init=1, random_state=config.random_seed)
        samples = samples.astype(np.float32)
    estimator.fit(samples)
    return np.asarray(estimator.labels_), float(estimator.inertia_)


def _save_map(path: Path, subclass_map: np.ndarray, n_subclasses: int) -> None:
    kind = np.uint8 if n_subclasses <= 255 else np.uint16
    values = np.where(subclass_map == IGNORE, np.iinfo(kind).max, subclass_map).astype(kind)
    buffer, image = io.BytesIO(), Image.fromarray(values)
    if kind is np.uint8:  # a palette image is not filtered, so it is read twice as fast, and shows its subclasses
        image.putpalette(voc_palette().tobytes())
    image.save(buffer, "PNG")
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def features_command(config: Config) -> str:
    """The command of stage 2, for messages."""
    run_dir = config.baseline_dir
    return f"python3 main.py --save_feature True --resume {run_dir}/best_model.pth --config configs/{run_dir.name}.json"
