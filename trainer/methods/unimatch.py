"""UniMatch V2 (Yang et al., TPAMI 2025): FixMatch with two strong views and complementary channel dropout."""

import torch
from torch import Tensor

from trainer.methods.fixmatch import FixMatchStep


def complementary_dropout(pairs: int, channels: list[int], device: torch.device) -> list[Tensor]:
    """Factors of the channels of each level's features, for views that come in pairs: (2 pairs, C, 1, 1) a level.

    For each pair 0 or 2 by a fair coin for the first view, and 2 less that for the second: what one view drops the
    other keeps. Half of the pairs, drawn at random, keep all channels.
    """
    keeps_all = (torch.randperm(pairs, device=device) < pairs // 2).view(-1, 1)
    factors = []
    for count in channels:
        first = torch.randint(2, (pairs, count), device=device) * 2.0
        first = first.masked_fill(keeps_all, 1)
        factors.append(torch.stack([first, 2 - first], 1).view(2 * pairs, count, 1, 1))
    return factors


class UniMatchStep(FixMatchStep):
    """``FixMatchStep`` for two strong views of each image, which go through the network in one batch."""

    def strong_features(self, u_strong: Tensor) -> Tensor:
        """Pixel features of the pairs of strong views, channels dropped at both levels that the decoder joins."""
        encoder = self.network.encoder
        levels = encoder.backbone(u_strong)
        factors = complementary_dropout(len(u_strong) // 2, [level.shape[1] for level in levels], u_strong.device)
        return encoder.decode(*(level * factor.to(level.dtype) for level, factor in zip(levels, factors, strict=True)))
