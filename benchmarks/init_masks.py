"""How long does --init_data take over its masks?

    python3 benchmarks/init_masks.py --masks 40 --side 2000

Makes masks of that side of discs of 21 classes, gray and RGBA, and times on one core what --init_data does with each:
look at it (decode, count, keep what was decoded) and write its index mask (map, encode). Prints a table of CPU seconds
a mask and a JSON line.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from dataloaders.own.masks import look_at_mask, write_index_mask
from utils.palette import voc_palette

CLASSES = 21


def discs(side: int, rng: np.random.Generator) -> np.ndarray:
    """Class indices, uint8 (side, side)."""
    mask = np.zeros((side, side), np.uint8)
    for _ in range(40):
        centre, radius = rng.integers(0, side, 2).tolist(), int(rng.integers(side // 40, side // 7))
        cv2.circle(mask, centre, radius, int(rng.integers(CLASSES)), -1)
    return mask


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", type=int, default=40)
    parser.add_argument("--side", type=int, default=2000, help="pixels")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rng, palette, seconds = np.random.default_rng(0), voc_palette(), {}
    masks = [discs(options.side, rng) for _ in range(options.masks)]
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("L", "RGBA"):
            paths = [Path(folder) / f"{kind}{number}.png" for number in range(options.masks)]
            for path, mask in zip(paths, masks, strict=True):
                Image.fromarray(mask if kind == "L" else palette[mask]).convert(kind).save(path)
            started = time.process_time()
            looks = [look_at_mask(path, path.with_suffix(".npz")) for path in paths]
            looked = time.process_time()
            for look in looks:
                write_index_mask(look, Path(folder) / "index.png", lambda found: found % 255, kind == "RGBA", palette)
            written = time.process_time()
            seconds[kind] = [(looked - started) / options.masks, (written - looked) / options.masks]
    print("| mask | look (s) | write (s) |\n| --- | ---: | ---: |")
    for kind, (look, write) in seconds.items():
        print(f"| {kind} | {look:.3f} | {write:.3f} |")
    print(json.dumps({"side": options.side, "masks": options.masks, "cpu_seconds": seconds}))


if __name__ == "__main__":
    main()
