"""What a configuration says about network, training step and optimiser, made into them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dataloaders import SegmentationData, parts_of_training
from models import USRN, Baseline, Segmentor, build_network
from models.batch_norm import synchronise_batch_norm
from models.pretrained import load_trunk, read_weights
from models.timm_trunk import timm_weights
from trainer.loop.supervision import supervised_loss
from trainer.methods.baseline import BaselineStep
from trainer.methods.fixmatch import FixMatchStep
from trainer.methods.shared import SharedStep
from trainer.methods.unimatch import UniMatchStep
from trainer.methods.usrn import USRNStep
from trainer.subclasses.table import SubclassTable
from utils.checkpoint import load_checkpoint, load_weights
from utils.config import FIXMATCH, UNIMATCH, Config
from utils.errors import UsageError
from utils.schedule import Schedule, ends_before_unlabelled

STEPS: dict[str, Callable[..., nn.Module]] = {FIXMATCH: FixMatchStep, UNIMATCH: UniMatchStep}
"""Of the methods that train on unlabelled images with one branch."""
PRETRAINED = Path(__file__).parents[2] / "pretrained"


def make_network(config: Config, n_classes: int, n_subclasses: int | None) -> Baseline | USRN:
    """The network with random weights; ``n_subclasses`` is None for a method without subclasses."""
    model = config.model
    return build_network(
        "USRN" if config.has_subclasses else "Baseline",
        n_classes,
        n_subclasses,
        layers=model.layers,
        out_dim=model.out_dim,
        base_width=model.base_width,
        trunk=model.trunk,
    )


def load_pretrained(network: Segmentor, config: Config, baseline: Path, classes: tuple[str, ...]) -> None:
    """Give the network the weights of ``pretrained``: for the trunk a file's, or ImageNet's, from ``pretrained/`` or
    fetched there; or those of the file ``baseline``."""
    if config.pretrained == "baseline":
        load_baseline(network, baseline, classes)
    elif isinstance(config.pretrained, str):
        load_trunk(network, read_weights(Path(config.pretrained)), config.pretrained)
    elif config.pretrained and config.model.trunk is not None:
        load_trunk(network, timm_weights(config.model.trunk), f"timm's weights of {config.model.trunk}")
    elif config.pretrained:
        from models.imagenet import imagenet_weights  # torchvision takes seconds to import

        load_trunk(network, imagenet_weights(config.model.layers, PRETRAINED), "the ImageNet weights")


def load_baseline(network: Segmentor, path: Path, classes: tuple[str, ...]) -> None:
    """Give both branches a baseline's weights, and the class branch its classifier.

    Raises
    ------
    UsageError
        The weights are of another network, or of other classes.
    """
    checkpoint = load_checkpoint(path)
    given = tuple(checkpoint.get("classes", classes))
    if given != classes:
        raise UsageError(f"{path}: is of other classes than this run ({', '.join(given)}). Train the baseline again.")
    own = {name: value for name, value in network.state_dict().items() if "_aux." in name or "_SubCls" in name}
    load_weights(network, {**checkpoint["state_dict"], **own}, path)
    network.copy_to_subclass_branch()


def make_step(
    config: Config, network: Segmentor, subclasses: SubclassTable | None, data: SegmentationData, device: torch.device
) -> nn.Module:
    """The training step of the configuration's method, under the shared settings where it has any, on its device."""
    step = _step_of_method(config, network, subclasses, supervised_loss(config, data))
    teacher = config.model.teacher == "ema"
    step = (SharedStep(step, teacher=teacher) if teacher or config.marks_padding else step).to(device)
    if device.type == "cpu":
        return step
    return step.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # missing in PyTorch's stubs


def _step_of_method(
    config: Config,
    network: Segmentor,
    subclasses: SubclassTable | None,
    supervised_loss: Callable[[Tensor, Tensor], Tensor],
) -> nn.Module:
    model = config.model
    supervised: Any = {"supervised_w": model.supervised_w, "supervised_loss": supervised_loss}
    both = supervised | {"pos_thresh_value": model.pos_thresh_value, "loss_weight_unsup": model.loss_weight_unsup}
    if config.name in STEPS:
        return STEPS[config.name](network, **both)
    if subclasses is None or not isinstance(network, USRN):
        return BaselineStep(network, **supervised)
    return USRNStep(
        network,
        subclasses.class_of_subclass,
        entropy_gate=model.entropy_gate,
        downsample=model.downsample,
        loss_weight_subcls=model.loss_weight_subcls,
        **both,
    )


def make_optimizer(config: Config, network: Baseline | USRN) -> torch.optim.SGD | torch.optim.AdamW:
    """The optimiser over heads and backbone, each with its ``initial_lr`` (docs/method.md section 6)."""
    args = config.optimizer.args
    backbone_lr = args.lr * (config.optimizer.backbone_lr_factor if config.diff_lrs else 1)
    groups = [
        {"params": list(network.head_parameters()), "initial_lr": args.lr},
        {"params": list(network.backbone_parameters()), "initial_lr": backbone_lr},
    ]
    # Fused: it can leave a step out without making the host wait (trainer/loop/guard.py).
    if config.optimizer.type == "AdamW":
        return torch.optim.AdamW(groups, lr=args.lr, weight_decay=args.weight_decay, fused=True)
    return torch.optim.SGD(groups, lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay, fused=True)


_STATE = {torch.optim.SGD: {"momentum_buffer"}, torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"}}
"""What an optimiser keeps of every parameter."""


def moments(config: Config) -> int:
    """How many values the optimiser keeps of every weight."""
    return 2 if config.optimizer.type == "AdamW" else 1


def load_moments(optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Take what an earlier optimiser's ``state_dict`` keeps of the parameters; learning rates and the like stay.

    Raises
    ------
    ValueError
        It is that of other parameters, or of another optimiser.
    """
    own = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shapes = {number: parameter.shape for number, parameter in enumerate(parameters)}
    taken: dict[int, dict[str, torch.Tensor]] = {}
    for number, entry in state["state"].items():
        values = {name: value for name, value in entry.items() if value is not None}
        if not values:  # SGD without momentum
            continue
        if values.keys() != _STATE[type(optimizer)]:
            raise ValueError("it is another optimiser's")
        if any(value.shape != (() if name == "step" else shapes.get(number)) for name, value in values.items()):
            raise ValueError("the optimiser's momentum is of other parameters")
        # In the parameter's memory order, which fused ones take for granted; on a GPU it is another than on the CPU.
        taken[number] = {
            name: value if name == "step" else torch.zeros_like(parameters[number]).copy_(value)
            for name, value in values.items()
        }
    optimizer.load_state_dict({**own, "state": {**own["state"], **taken}})


def describe(
    config: Config, data: SegmentationData, network: nn.Module, schedule: Schedule, device: torch.device
) -> str:
    """What a training is, in a line."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return (
        f"{config.experim_name}: {data.counts(parts_of_training(config))}; {parameters / 1e6:.1f} M parameters; "
        f"{schedule.epochs} epochs of {schedule.iterations_per_epoch} iterations on {device.type}, "
        f"{torch.get_num_threads()} CPU threads"
        + "; NO unlabelled image is used: model.epoch_start_unsup is too late"
        * ends_before_unlabelled(config)
    )


def distribute(step: nn.Module, device: torch.device) -> nn.Module:
    """The step as this process's part of all processes' one."""
    if not torch.distributed.is_initialized():
        return step
    ids = [device.index] if device.type == "cuda" else None
    together = DistributedDataParallel(synchronise_batch_norm(step), device_ids=ids, broadcast_buffers=False)
    _group_gradients(together)
    return together


def _group_gradients(together: DistributedDataParallel) -> None:
    """Let the order in which gradients are added up over processes be the same in the first iteration as in all others.

    After a process's first backward pass, gradients are grouped anew by the order in which they came, and three numbers
    have another sum in another order: a run that went on would not be the unbroken one to the last bit. So the first
    pass is one of no use, which is the same wherever a run goes on. It groups them by the reverse of the network's
    order, which is about the order in which they come.
    """
    attributes = vars(together.module)
    compiled = attributes.get("forward")
    parameters = [parameter for parameter in together.parameters() if parameter.requires_grad]
    attributes["forward"] = lambda zero: zero * sum(parameter.sum() for parameter in parameters)
    together(parameters[0].new_zeros(())).backward()
    if compiled is None:
        del attributes["forward"]
    else:
        attributes["forward"] = compiled
    for parameter in parameters:
        parameter.grad = None
