"""The training streams as the original runs them; no benchmark itself, but what others measure against."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from dataloaders.geometry import MEAN_COLOUR
from dataloaders.photometry import JITTER, MEAN, P_BLUR, P_GRAYSCALE, P_JITTER, STD
from dataloaders.sets.description import Sample


class OriginalStream:
    """Everything in the worker, in Pillow: the whole image scaled on 8 bit, cropped, jittered in colour, normalised."""

    def __init__(
        self,
        samples: tuple[Sample, ...],
        *,
        base_size: int,
        crop_size: int,
        scales: tuple[float, float],
        jitter: bool,
        subclass_dir: Path,
    ):
        self.samples, self.subclass_dir, self.labelled_jitter = samples, subclass_dir, jitter
        self.base_size, self.crop_size, self.scales = base_size, crop_size, scales
        self.jitter = transforms.ColorJitter(*JITTER)
        self.grayscale = transforms.Grayscale(3)
        self.to_network = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def _crop(self, sample: Sample, mask_files: list[Path], rng: np.random.Generator):
        image = Image.open(sample.image).convert("RGB")
        masks = [np.asarray(Image.open(path), dtype=np.int32) for path in mask_files]
        low, high = (int(self.base_size * scale) for scale in self.scales)
        ratio = int(rng.integers(low, high + 1)) / max(image.size)
        size = int(image.width * ratio + 0.5), int(image.height * ratio + 0.5)
        image = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
        masks = [cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST) for mask in masks]
        crop = self.crop_size
        bottom, right = (max(0, crop - side) for side in image.shape[:2])
        if bottom or right:
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=MEAN_COLOUR)
            masks = [cv2.copyMakeBorder(mask, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=255) for mask in masks]
        top, left = (int(rng.integers(side - crop + 1)) for side in image.shape[:2])
        window = slice(top, top + crop), slice(left, left + crop)
        image, masks = image[window], [mask[window] for mask in masks]
        if rng.random() < 0.5:
            image, masks = np.fliplr(image), [np.fliplr(mask) for mask in masks]
        return Image.fromarray(image), [torch.from_numpy(mask.copy()).long() for mask in masks]

    def labelled(self, key: tuple[int, int]) -> dict:
        """The item of a sample's index and a draw's number: image float32 (3, S, S), two masks int64 (S, S)."""
        sample, rng = self.samples[key[0]], np.random.default_rng(key[1])
        image, (target, subclass) = self._crop(sample, [sample.label, self.subclass_dir / sample.label.name], rng)
        if self.labelled_jitter:
            image = self.jitter(image)
        return {"image": self.to_network(image), "target": target, "subclass": subclass}

    def unlabelled(self, key: tuple[int, int]) -> dict:
        """Two views float32 (3, S, S) and the mask, which is read for nothing."""
        sample, rng = self.samples[key[0]], np.random.default_rng(key[1])
        weak, (target,) = self._crop(sample, [sample.label], rng)
        strong = weak
        if rng.random() < P_BLUR:
            strong = Image.fromarray(cv2.GaussianBlur(np.asarray(strong), (5, 5), 0))
        if rng.random() < P_JITTER:
            strong = self.jitter(strong)
        if rng.random() < P_GRAYSCALE:
            strong = self.grayscale(strong)
        return {"weak": self.to_network(weak), "strong": self.to_network(strong), "target": target}
