import numpy as np
import pytest

from dataloaders.sets.description import Sample
from tests.dataloaders.miniature import write_image, write_mask


@pytest.fixture
def samples(tmp_path):
    """Six images of noise with masks of three classes."""
    rng = np.random.default_rng(0)
    return tuple(
        Sample(
            f"s{number}",
            write_image(tmp_path / "images" / f"s{number}.png", rng.integers(0, 256, (20, 24, 3))),
            write_mask(tmp_path / "masks" / f"s{number}.png", rng.integers(0, 3, (20, 24)).astype(np.uint8)),
        )
        for number in range(6)
    )
