"""How much faster is a USRN iteration than the original's way of running it? VOC's classes, subclasses and network.

    python -m benchmarks.train_step                         # 2 + 2 crops of 128 on the CPU, 8 + 8 of 320 on a GPU
    python -m benchmarks.train_step --precision bf16        # of this code's way; the original's is float32
    python -m benchmarks.train_step --no-graph              # on a GPU, this code's way kernel by kernel

Ours is the trainer's own iteration: colour, step, optimiser, confusion matrix. The original's has its colour work
done beforehand. On a GPU, which is waited for at the end of a round alone, a round is ten iterations. Prints seconds,
memory and ratios; the operations of an iteration and the bytes of its parameters over what the device reaches in the
same run (the floor); and, last, one JSON line.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.comparing import COUNTS, in_turn, make_data, parser, peaks, report, start  # noqa: E402
from benchmarks.original import OriginalStep  # noqa: E402
from dataloaders import open_data  # noqa: E402
from models import USRN  # noqa: E402
from models.execution import DTYPES, choose_precision  # noqa: E402
from trainer.loop.trainer import Trainer  # noqa: E402


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--crop", type=int, help="default: 128 on the CPU, 320 on a GPU")
    arguments.add_argument("--batch", type=int, help="labelled images, and unlabelled ones; default: 2, 8")
    arguments.add_argument("--layers", type=int, default=50)
    arguments.add_argument("--precision", choices=("auto", *DTYPES), default="auto")
    arguments.add_argument("--compile", action="store_true")
    arguments.add_argument("--no-graph", action="store_true", help="on a GPU, without trainer.cuda_graph")
    options = arguments.parse_args()
    device = start(options)
    crop, batch_size = (options.crop or 320, options.batch or 8) if device.type == "cuda" else (
        options.crop or 128, options.batch or 2)  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        config = make_data(Path(folder), 4 * batch_size, 1, (375, 500), crop, batch_size, 0, options.precision,
                           {"compile": options.compile, "cuda_graph": not options.no_graph},
                           layers=options.layers)  # fmt: skip
        trainer = Trainer(config, open_data(config), device)
        trainer.step.train()
        labelled, unlabelled = (next(iter(stream)) for stream in (trainer.batches.labelled, trainer.batches.unlabelled))

        def ours() -> None:
            batch = trainer.batches._supervised(labelled) | trainer.batches._views(unlabelled)
            trainer._iterate(batch)

        batch = trainer.batches._supervised(labelled) | trainer.batches._views(unlabelled)
        batch = {name: values.cpu() for name, values in batch.items()}
        if device.type == "cuda":
            batch = {name: values.pin_memory() for name, values in batch.items()}
        torch.manual_seed(0)
        network = USRN(len(COUNTS), sum(COUNTS), layers=options.layers).to(device)
        class_of_subclass = torch.repeat_interleave(torch.arange(len(COUNTS)), torch.tensor(COUNTS)).to(device)
        step = OriginalStep(network, class_of_subclass, len(COUNTS))

        def original() -> None:
            step({name: values.to(device, non_blocking=True) for name, values in batch.items()})

        precision = choose_precision(options.precision, device)
        ways = {"the original's": original, f"this code, {precision}": ours}
        rows = in_turn(ways, options.rounds, device, 10 if device.type == "cuda" else 1)
        trainer.recorded_pass.can_record = False  # what is replayed is not counted
        with FlopCounterMode(display=False) as counter:
            ours()
    operations = counter.get_total_flops()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    # Weights read by three forward and two backward passes, two gradients written; gradients, momentum and weights
    # in the optimiser.
    bytes_moved = parameters * (7 * DTYPES[precision].itemsize + 5 * 4)
    per_second, bytes_per_second = peaks(device, DTYPES[precision])
    floor = max(operations / per_second, bytes_moved / bytes_per_second)
    report(
        f"USRN iteration, {batch_size} + {batch_size} crops of {crop}, ResNet-{options.layers}",
        device,
        rows,
        tflop=operations / 1e12,
        gbytes_of_parameters=bytes_moved / 1e9,
        peak_tflop_s=per_second / 1e12,
        peak_gbyte_s=bytes_per_second / 1e9,
        floor_s=floor,
        times_the_floor=(rows[1]["wall_s"] if device.type == "cuda" else rows[1]["cpu_s"] / options.threads) / floor,
    )


if __name__ == "__main__":
    main()
