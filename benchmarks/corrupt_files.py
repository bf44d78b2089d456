"""What becomes of damaged image and mask files? Every one must be read or refused with its name, and none may crash.

    python3 benchmarks/corrupt_files.py --variants 2000 --seed 0

Makes variants of nine sound files: truncated, one bit flipped, bytes of the header replaced, a block of zeros, bytes
missing from the middle. A variant is read right if its pixels are those of the sound file. Where they are others
without an error, --check_data may still find the damage by the decoder's complaint; what is left is read wrong, which a
format without check sums cannot prevent. Prints a table and a JSON line.
"""

import argparse
import io
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent.parent))
from dataloaders.check import decoder_complaints
from dataloaders.images import read_image
from dataloaders.reading import read_mask
from utils.errors import UsageError
from utils.palette import voc_palette

HEADER = 64  # bytes


def sound_files(rng: np.random.Generator) -> dict[str, bytes]:
    """Files by name; masks have "mask" in it."""
    image = Image.fromarray(rng.integers(0, 256, (12, 15, 3), np.uint8)).resize((150, 120), Image.Resampling.BICUBIC)
    mask = Image.fromarray(rng.integers(0, 21, (12, 15)).astype(np.uint8)).resize((150, 120), Image.Resampling.NEAREST)
    palette = mask.copy()
    palette.putpalette(voc_palette().tobytes())
    pictures = {
        "image.jpg": (image, "JPEG", {}),
        "progressive.jpg": (image, "JPEG", {"progressive": True}),
        "cmyk.jpg": (image.convert("CMYK"), "JPEG", {}),
        "image.png": (image, "PNG", {}),
        "image.webp": (image, "WEBP", {"lossless": True}),
        "image.tif": (image, "TIFF", {}),
        "mask.png": (mask, "PNG", {}),
        "palette_mask.png": (palette, "PNG", {}),
        "colour_mask.png": (palette.convert("RGB"), "PNG", {}),
    }
    files = {}
    for name, (picture, kind, how) in pictures.items():
        buffer = io.BytesIO()
        picture.save(buffer, kind, **how)
        files[name] = buffer.getvalue()
    return files


def truncated(whole: bytes, rng: np.random.Generator) -> bytes:
    return whole[: rng.integers(len(whole))]


def bit_flipped(whole: bytes, rng: np.random.Generator) -> bytes:
    place = int(rng.integers(len(whole)))
    return whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))]) + whole[place + 1 :]


def header_edited(whole: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(whole)
    for place in rng.integers(min(HEADER, len(whole)), size=int(rng.integers(1, 5))):
        damaged[place] = rng.integers(256)
    return bytes(damaged)


def zeroed(whole: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(whole)))
    end = min(len(whole), start + int(rng.integers(1, 513)))
    return whole[:start] + bytes(end - start) + whole[end:]


def cut_out(whole: bytes, rng: np.random.Generator) -> bytes:
    start = int(rng.integers(len(whole)))
    return whole[:start] + whole[start + int(rng.integers(1, 513)) :]


DAMAGES = (truncated, bit_flipped, header_edited, zeroed, cut_out)


def reader(name: str) -> Callable[[Path], np.ndarray]:
    """The function that reads one of ``sound_files``."""
    return partial(read_mask, n_classes=21) if "mask" in name else read_image


def outcome(read: Callable[[Path], np.ndarray], path: Path, expected: np.ndarray) -> str:
    """One of ``OUTCOMES``."""
    with decoder_complaints() as complaints:
        try:
            found = read(path)
        except UsageError as error:
            return "refused" if str(error).startswith(f"{path}: ") else "crashed"
        except Exception:
            return "crashed"
    if np.array_equal(found, expected):
        return "read right"
    return "found by --check_data" if any(line.startswith("Corrupt JPEG") for line in complaints) else "read wrong"


OUTCOMES = ("refused", "read right", "found by --check_data", "read wrong", "crashed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variants", type=int, default=2000, help="of every file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    rng = np.random.default_rng(options.seed)
    started = time.monotonic()
    table: dict[str, Counter] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, whole in sound_files(rng).items():
            path = Path(folder) / name
            path.write_bytes(whole)
            read = reader(name)
            expected, counts = read(path), Counter()
            for number in range(options.variants):
                path.write_bytes(DAMAGES[number % len(DAMAGES)](whole, rng))
                counts[outcome(read, path, expected)] += 1
            table[name] = counts
    table["all"] = sum(table.values(), Counter())

    print("| file | " + " | ".join(OUTCOMES) + " |\n| --- |" + " ---: |" * len(OUTCOMES))
    for name, counts in table.items():
        print(f"| {name} | " + " | ".join(f"{counts[what]:,}" for what in OUTCOMES) + " |")
    print(json.dumps({"seed": options.seed, "seconds": round(time.monotonic() - started, 1), **table}))
    sys.exit(1 if table["all"]["crashed"] else 0)


if __name__ == "__main__":
    main()
