"""What a study's table and page say of its differences, by how many images and seeds there are."""

import numpy as np
import pytest

from trainer.evaluation.statistics import FEWEST
from trainer.studies.page import study_page
from trainer.studies.table import difference_text, differences_of, interval_notes


def contents(n_images: int, n_seeds: int, n_rare: int = 99) -> dict:
    """A study of two variants; the rare class is in ``n_rare`` of the images."""
    targets = np.full((n_images, 2), 10)
    targets[n_rare:, 1] = 0
    counts = {
        name: {seed: np.stack([targets * right // 10, targets, targets * right // 10], 1) for seed in range(n_seeds)}
        for name, right in (("baseline", 5), ("USRN", 8))
    }
    differences = differences_of(counts, {"rare": [1], "frequent": [0]})
    variants = {name: {"seeds": {}} for name in counts}
    return {"study": "x", "question": "?", "command": "", "variants": variants, "differences": differences}


@pytest.mark.parametrize(
    ("n_images", "n_rare", "without_interval"),
    [(FEWEST, FEWEST, set()), (FEWEST, FEWEST - 1, {"rare"}), (FEWEST - 1, 1, {"mean", "rare", "frequent"})],
)
def test_no_interval_stands_where_too_few_images_have_the_classes_and_the_page_says_so(
    n_images, n_rare, without_interval
):
    of_study = contents(n_images, FEWEST, n_rare)
    texts = {what: difference_text(found) for what, found in of_study["differences"]["USRN"].items()}
    assert {what for what, text in texts.items() if "[" not in text} == without_interval
    assert all("+" in text and f"{FEWEST} of {FEWEST} above" in text for text in texts.values())
    notes = interval_notes(of_study)
    assert len(notes) == bool(without_interval)
    assert all(note in study_page(of_study) for note in notes)
    if without_interval:
        assert f"(only {n_rare} images)" in texts["rare"]
        assert f"fewer than {FEWEST} images" in notes[0]


@pytest.mark.parametrize(
    ("n_seeds", "said"), [(1, "one seed"), (3, "in 1 of 4 cases"), (5, "in 1 of 16 cases"), (FEWEST, None)]
)
def test_intervals_over_few_seeds_are_said_to_tell_little_of_others(n_seeds, said):
    notes = interval_notes(contents(20, n_seeds))
    assert [said in note for note in notes] == ([] if said is None else [True])
