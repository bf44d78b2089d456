"""The two networks: encoder to pixel features, classifiers to logits. No losses here."""

from collections.abc import Iterator

from torch import Tensor, nn

from models.deeplab import ASPP, Decoder, initialise_convolutions, upsample
from models.layers import Dropout
from models.resnet import ResNet
from models.timm_trunk import TimmTrunk, make_timm_trunk

Trunk = ResNet | TimmTrunk


class Encoder(nn.Module):
    """Trunk, ASPP and decoder: images → pixel features."""

    def __init__(self, backbone: Trunk, out_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.aspp = ASPP(backbone.out_channels, out_dim)
        self.decoder = Decoder(backbone.low_level_channels, out_dim)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → the class branch's pixel feature (N, out_dim, H/4, W/4)."""
        return self.decode(*self.backbone(images))

    def decode(self, low_level: Tensor, top: Tensor) -> Tensor:
        """The trunk's levels, (N, c, H/4, W/4) and (N, c', H/16, W/16) → pixel feature (N, out_dim, H/4, W/4)."""
        return self.decoder(self.aspp(top), low_level)


class TwoBranchEncoder(Encoder):
    """An encoder whose layers 2-4, ASPP and decoder exist a second time, for the subclasses.

    The backbone must have its subclass copy. ``_SubCls`` is the spelling of the original's checkpoints.
    """

    def __init__(self, backbone: Trunk, out_dim: int) -> None:
        super().__init__(backbone, out_dim)
        self.aspp_SubCls = ASPP(backbone.out_channels, out_dim)
        self.decoder_SubCls = Decoder(backbone.low_level_channels, out_dim)

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) → class and subclass pixel features, (N, out_dim, H/4, W/4) each."""
        low_level, top, subclass_top = self.backbone.both(images)
        class_features = self.decoder(self.aspp(top), low_level)
        return class_features, self.decoder_SubCls(self.aspp_SubCls(subclass_top), low_level)


class Segmentor(nn.Module):
    """What both networks can do: one class branch, and the split of their parameters by learning rate."""

    encoder: Encoder
    classifier: nn.Sequential
    trunk: str | None

    def pixel_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → the class branch's pixel feature (N, out_dim, H/4, W/4), sizes rounded up."""
        return self.encoder(images)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) → class logits (N, n_classes, H, W): all that evaluation needs."""
        logits = self.classifier(self.pixel_features(images))
        return upsample(logits.float(), images.shape[-2:])  # as in training: in 16 bit, classes would come out equal

    def copy_to_subclass_branch(self) -> None:
        """Give the subclass branch, where there is one, the weights of the class branch, classifier left out."""

    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """The trunk's parameters, which learn at a tenth of the rate (docs/method.md section 6)."""
        return self.encoder.backbone.parameters()

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter that is not the trunk's."""
        backbone = {id(parameter) for parameter in self.backbone_parameters()}
        return (parameter for parameter in self.parameters() if id(parameter) not in backbone)


class Baseline(Segmentor):
    """DeepLabv3+ over the classes: stage 1, and the features of stage 2 (docs/method.md section 4).

    Parameters
    ----------
    n_classes
        Number of classes.
    layers
        Depth of the ResNet: 50 or 101, or 14 or 26 for demos.
    out_dim
        Channels of ASPP, decoder and pixel feature.
    base_width
        Channels of the ResNet's stem; all its widths grow with it. 64 is the published network.
    trunk
        ``timm/<model>`` in place of the ResNet; ``layers`` and ``base_width`` are then without effect.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        layers: int = 50,
        out_dim: int = 256,
        base_width: int = 64,
        trunk: str | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.encoder = Encoder(_trunk(trunk, layers, base_width, subclass_copy=False), out_dim)
        self.classifier = _classifier(out_dim, n_classes)


class USRN(Segmentor):
    """DeepLabv3+ with a class and a subclass branch on one stem and layer1 (docs/method.md section 4).

    Parameters
    ----------
    n_classes
        Number of classes.
    n_subclasses
        Number of subclasses over all classes.
    layers, out_dim, base_width, trunk
        As for ``Baseline``; both branches have the same.
    """

    def __init__(
        self,
        n_classes: int,
        n_subclasses: int,
        *,
        layers: int = 50,
        out_dim: int = 256,
        base_width: int = 64,
        trunk: str | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        backbone = _trunk(trunk, layers, base_width, subclass_copy=True)
        self.encoder: TwoBranchEncoder = TwoBranchEncoder(backbone, out_dim)
        self.classifier = _classifier(out_dim, n_classes)
        self.classifier_SubCls = _classifier(out_dim, n_subclasses)

    def copy_to_subclass_branch(self) -> None:
        encoder = self.encoder
        encoder.backbone.copy_to_subclass_layers()
        encoder.aspp_SubCls.load_state_dict(encoder.aspp.state_dict())
        encoder.decoder_SubCls.load_state_dict(encoder.decoder.state_dict())

    def both_pixel_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) → class and subclass pixel features, (N, out_dim, H/4, W/4) each, sizes rounded up."""
        return self.encoder.both(images)


def build_network(
    name: str,
    n_classes: int,
    n_subclasses: int | None = None,
    *,
    layers: int = 50,
    out_dim: int = 256,
    base_width: int = 64,
    trunk: str | None = None,
) -> Baseline | USRN:
    """The network of a config's ``name``, "Baseline" or "USRN".

    Raises
    ------
    ValueError
        For another name, or a USRN without its number of subclasses.
    """
    if name == "Baseline":
        return Baseline(n_classes, layers=layers, out_dim=out_dim, base_width=base_width, trunk=trunk)
    if name == "USRN":
        if n_subclasses is None:
            raise ValueError("a USRN network needs n_subclasses")
        return USRN(n_classes, n_subclasses, layers=layers, out_dim=out_dim, base_width=base_width, trunk=trunk)
    raise ValueError(f'name must be "Baseline" or "USRN", not {name!r}')


def _trunk(trunk: str | None, layers: int, base_width: int, *, subclass_copy: bool) -> Trunk:
    if trunk is None:
        return ResNet(layers, base_width=base_width, subclass_copy=subclass_copy)
    return make_timm_trunk(trunk, subclass_copy=subclass_copy)


def _classifier(in_channels: int, n_outputs: int) -> nn.Sequential:
    classifier = nn.Sequential(Dropout(0.1), nn.Conv2d(in_channels, n_outputs, 1))
    initialise_convolutions(classifier)
    return classifier
