import numpy as np
import pytest

from dataloaders.sets.description import Sample
from dataloaders.sets.voc import CLASSES
from tests.dataloaders.miniature import config_of, data_of, write_image, write_mask
from trainer.subclasses.counts import PAPER_COUNTS
from trainer.subclasses.table import read_subclass_table
from utils.errors import UsageError


@pytest.fixture
def data(tmp_path):
    """Two images of VOC with all its classes in their masks."""
    samples = []
    for id_ in "ab":
        mask = np.arange(21, dtype=np.uint8).repeat(4).reshape(6, 14)
        image = write_image(tmp_path / "images" / f"{id_}.png", 9, mask.shape)
        samples.append(Sample(id_, image, write_mask(tmp_path / "masks" / f"{id_}.png", mask)))
    return data_of(samples, classes=CLASSES)


def maps_of(data, counts, folder):
    """Maps in which every class is its last subclass."""
    last = (np.cumsum(counts) - 1).astype(np.uint8)
    for sample in data.labelled:
        write_mask(folder / sample.label.name, last[data.read_mask(sample.label)])
    return folder


def table_of(data, folder, n_labelled):
    return read_subclass_table(config_of(folder, "voc", n_labelled=n_labelled, label_subcls=str(folder)), data)


@pytest.mark.parametrize("named", [165, 331, 662])
@pytest.mark.parametrize("made", [165, 331, 662])
def test_maps_of_the_original_get_the_counts_of_the_split_that_they_were_made_for(
    data, tmp_path, made, named, caplog, monkeypatch
):
    counts = PAPER_COUNTS["voc", made]
    assert table_of(data, maps_of(data, counts, tmp_path / "maps"), named).counts == list(counts)
    assert ("holds the maps of another published split" in caplog.text) is (made != named)


def test_maps_that_fit_the_masks_by_no_published_split_are_refused(data, tmp_path):
    for sample in data.labelled:
        write_mask(tmp_path / "maps" / sample.label.name, 180, (6, 14))
    with pytest.raises(
        UsageError, match="maps: its maps have no subclasses.json and fit the masks by the counts of no"
    ):
        table_of(data, tmp_path / "maps", 165)
