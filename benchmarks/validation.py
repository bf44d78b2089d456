"""How much faster is a validation than the original's way of running it? VOC's image sizes, classes and network.

    python -m benchmarks.validation                        # 12 images on the CPU, 96 on a GPU
    python -m benchmarks.validation --batch 8 --device cuda

The original's way: one image at a time, float32, both branches, loss and metrics read back for every image. Ours is
``evaluate``, batched over images of one size. Images are in memory; reading them is no part. Prints seconds, images
a second and ratios, and, last, one JSON line.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import original  # noqa: E402
from benchmarks.comparing import COUNTS, in_turn, parser, report, start  # noqa: E402
from dataloaders.photometry import normalise, to_unit  # noqa: E402
from models import USRN  # noqa: E402
from models.execution import DTYPES, choose_precision  # noqa: E402
from trainer.evaluation.evaluate import evaluate  # noqa: E402
from trainer.prediction.whole_image import WholeImages  # noqa: E402

SIZES = ((375, 500), (333, 500), (500, 375))


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--images", type=int, help="default: 12 on the CPU, 96 on a GPU")
    arguments.add_argument("--batch", type=int, help="of this code's way; default: 2 on the CPU, 8 on a GPU")
    arguments.add_argument("--precision", choices=("auto", *DTYPES), default="auto")
    options = arguments.parse_args()
    device = start(options)
    count, batch_size = (options.images or 96, options.batch or 8) if device.type == "cuda" else (
        options.images or 12, options.batch or 2)  # fmt: skip

    network = USRN(len(COUNTS), sum(COUNTS)).to(device)
    same = USRN(len(COUNTS), sum(COUNTS)).to(device)
    same.load_state_dict(network.state_dict())
    batches, singles = [], []
    for first in range(0, count, batch_size):
        height, width = SIZES[first // batch_size % len(SIZES)]
        images = torch.randint(0, 256, (min(batch_size, count - first), 3, height, width), dtype=torch.uint8)
        images = F.pad(images, (0, -width % 8, 0, -height % 8))
        targets = torch.randint(-1, len(COUNTS), (len(images), height, width), dtype=torch.int16)
        if device.type == "cuda":
            images, targets = images.pin_memory(), targets.pin_memory()
        batches.append({"samples": [None] * len(images), "images": images, "targets": list(targets)})
        singles += zip(normalise(to_unit(images)), targets, strict=True)

    precision = choose_precision(options.precision, device)
    rows = in_turn(
        {
            "the original's": lambda: original.validate(same, singles, len(COUNTS)),
            f"this code, {precision}": lambda: evaluate(
                WholeImages(network, device, precision), batches, len(COUNTS), device
            ),
        },
        options.rounds,
        device,
    )
    for row in rows:
        row["images_per_s"] = count / row["wall_s"]
    report(f"validation of {count} images, VOC sizes, ResNet-50, batch {batch_size}", device, rows)


if __name__ == "__main__":
    main()
