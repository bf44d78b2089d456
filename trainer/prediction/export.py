"""``--export``: the class branch as one file for other programs, for any number of images of any size."""

import io
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from models import Segmentor, build_network
from models.architecture import infer_architecture
from trainer.prediction.whole_image import prepare
from utils.errors import UsageError, first_line
from utils.files import write_whole
from utils.logger import log

SUFFIXES = {"onnx": ".onnx", "exported_program": ".pt2"}
CHECKED = ((1, 64, 64), (2, 97, 130), (1, 200, 75))  # images, height, width with which an export is tried
TOLERANCE = 1e-3  # largest difference of a logit, as a part of the largest logit
_NAMES = {0: "batch", 2: "height", 3: "width"}


class Exported(nn.Module):
    """Images as other programs have them → class logits; padding and normalisation are inside."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """RGB float32 in [0, 1], (N, 3, H, W) → class logits (N, C, H, W)."""
        height, width = image.shape[-2:]
        logits = self.network(prepare(image))
        # Cut by index: slices would tie the export to the example's size.
        for axis, side in ((2, height), (3, width)):
            logits = logits.index_select(axis, torch.arange(side, device=image.device))
        return logits


def export_network(network: Segmentor, classes: tuple[str, ...], format: str, output: Path) -> None:
    """Write the network to ``output``, after what comes out of the export has been compared with PyTorch.

    Parameters
    ----------
    format
        "onnx", or "exported_program": a program of ``torch.export``, which needs PyTorch but none of this code.

    Raises
    ------
    UsageError
        The name of ``output`` is another format's, a package that the format needs is missing, or the exporter cannot
        do with a foreign trunk.
    """
    if output.suffix.lower() != SUFFIXES[format]:
        raise UsageError(f"--output {output}: the name of an export as {format} ends with {SUFFIXES[format]}.")
    exporting = Exported(_class_branch(network)).eval()
    with torch.no_grad():
        exporting(_example())  # makes the constants of the normalisation, which an exporter's own would not outlive
    try:
        contents, exported = FORMATS[format](exporting, json.dumps(classes, ensure_ascii=False))
    except Exception as error:  # exporters raise what they like over operations that they do not know
        if network.trunk is None or isinstance(error, UsageError):
            raise
        reason = first_line(error)[:200]
        other = next(name for name in FORMATS if name != format)
        raise UsageError(f"{network.trunk} cannot be exported as {format} ({reason}). Try --export {other}.") from error
    if exported is None:
        log.warning("the export is not compared with PyTorch's result: that needs the package onnxruntime")
    else:
        difference = _compare(exporting, exported)
        log.info(f"{len(CHECKED)} sizes compared with PyTorch: logits differ by {difference:.0e} of the largest")
    write_whole(output, contents)


def _class_branch(network: Segmentor) -> nn.Module:
    """The part of a network that predicts classes, which a baseline consists of; on the CPU."""
    weights = network.state_dict()
    architecture = infer_architecture(weights, network.trunk) | {"name": "Baseline", "n_subclasses": None}
    baseline = build_network(**architecture)
    baseline.load_state_dict({name: weights[name] for name in baseline.state_dict()})
    return baseline.eval()


def _to_onnx(network: Exported, classes: str) -> tuple[bytes, Callable[[Tensor], Tensor] | None]:
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if missing:
        raise UsageError(f"--export onnx needs the packages onnx and onnxscript: pip install {' '.join(missing)}")
    program = torch.onnx.export(
        network,
        (_example(),),
        dynamo=True,
        verbose=False,
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes={"image": _NAMES},
    )
    program = cast(torch.onnx.ONNXProgram, program)  # None is what the old exporter gives
    program.model.metadata_props["classes"] = classes
    contents = program.model_proto.SerializeToString()
    if find_spec("onnxruntime") is None:
        return contents, None
    from onnxruntime import InferenceSession

    session = InferenceSession(contents, providers=["CPUExecutionProvider"])
    return contents, lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


def _to_program(network: Exported, classes: str) -> tuple[bytes, Callable[[Tensor], Tensor]]:
    sizes = dict.fromkeys(_NAMES, torch.export.Dim.AUTO)
    program = torch.export.export(network, (_example(),), dynamic_shapes={"image": sizes})
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={"classes.json": classes})
    file.seek(0)
    return file.getvalue(), torch.export.load(file).module()


FORMATS = {"onnx": _to_onnx, "exported_program": _to_program}


def _example() -> Tensor:
    return torch.rand(2, 3, 72, 85)


@torch.no_grad()
def _compare(network: nn.Module, exported: Callable[[Tensor], Tensor]) -> float:
    """The largest difference of a logit, as a part of the largest logit."""
    differences = []
    for images, height, width in CHECKED:
        image = torch.rand(images, 3, height, width)
        expected = network(image)
        differences.append(float((exported(image) - expected).abs().max() / expected.abs().max()))
    if not max(differences) < TOLERANCE:
        raise RuntimeError(
            f"the export's logits differ by {max(differences):.1e} of the largest one; it is not written"
        )
    return max(differences)
