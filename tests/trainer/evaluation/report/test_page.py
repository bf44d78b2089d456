import base64
import dataclasses
import io
import json
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders import open_data
from trainer.evaluation.evaluate import save_results
from trainer.evaluation.image_scores import IMAGE_SCORES
from trainer.evaluation.label_quality import COUNTED_PIXELS
from trainer.evaluation.measures import contents
from trainer.evaluation.report import write_report
from utils.config_file import load_config
from utils.metrics import scores
from utils.palette import save_mask

HOSTILE = "<b>sky & \"sea\"</b><script>alert('x')</script>"
VOID = {"meta", "link", "br", "img", "path", "rect", "polyline"}


class Page(HTMLParser):
    """What a report consists of; every element must be closed in the order in which it was opened."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.headings, self.text, self.open = [], [], [], "", []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "h2":
            self.headings.append(text)
        if not self.open or self.open[-1] != "style":
            self.text += text

    def images(self):
        """Every picture of the page, decoded."""
        for name, value in self.attributes:
            if name == "src":
                assert value.startswith("data:image/")
                with Image.open(io.BytesIO(base64.b64decode(value.partition(",")[2], validate=True))) as image:
                    image.load()
                    yield image


def write_run(run_dir, data, *, right, seed):
    """The files of an evaluated run whose predictions are right for this share of the pixels."""
    rng = np.random.default_rng(seed)
    counts = np.full((len(data.classes), len(data.classes)), 3) + 200 * np.eye(len(data.classes), dtype=int)
    found = contents(data.classes, scores(torch.tensor(counts)))
    save_results(run_dir / "results.json", found | {"checkpoint": "/home/me/best.pth"})
    lines = ["image,mean_iou"]
    (run_dir / "preds").mkdir()
    (run_dir / "entropy").mkdir()
    for number, sample in enumerate(data.validation):
        mask = np.asarray(Image.open(sample.label))
        wrong = rng.random(mask.shape) > right
        save_mask(run_dir / "preds" / f"{sample.id}.png", np.where(wrong, 0, mask), data.palette)
        save_mask(run_dir / "entropy" / f"{sample.id}.png", wrong * 255, data.palette)
        lines.append(f"{sample.id},{right - 0.1 * number * (seed - 1):.6f}")
    (run_dir / IMAGE_SCORES).write_text("\n".join(lines) + "\n")
    made = {"began": "2030-01-02T03:04:05", "ended": "2030-01-02T04:06:05", "python": "3.12.1", "torch": "2.12.1"}
    made |= {"device": "NVIDIA H100", "processes": 2, "resumed_at": 40}
    (run_dir / "stages.json").write_text(json.dumps({"train": {"source": "", "config": {}, "made": made}}))
    shares = [1 / len(data.classes)] * len(data.classes)
    history = []
    for iteration in range(20, 2000, 20):
        history.append({"iteration": iteration, "Ls": 1.0, "total": 1.0, "lr": {"heads": 0.01, "backbone": 0.001}})
        history.append({"iteration": iteration, "val_mean_iou": 0.5, "train_mean_iou": None})
        history[-1] |= {"label_shares": shares, "pseudo_label_shares": [2 * shares[0], 0, *shares[2:]]}
    for iteration in (1000, 2000):
        judged = {name: [40] * len(data.classes) for name in COUNTED_PIXELS} | {
            "used_right": [30, *[iteration // 100] * 7]
        }
        history.append({"iteration": iteration, "epoch": 1, "pseudo_label_quality": judged})
    (run_dir / "history.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in history))


@pytest.fixture
def runs(tiny_configs):
    """Configuration of a USRN run and its data; the folders of both runs are complete, but for networks."""
    config = load_config(tiny_configs[1])
    data = open_data(config)
    data = dataclasses.replace(data, classes=(HOSTILE, *data.classes[1:]))
    config.subclass_dir.mkdir(parents=True)
    config.run_dir.mkdir()
    table = {"classes": data.classes, "counts": [2] + [1] * 7, "sizes": [500, 400, 300, 200, 100, 50, 20, 10, 4]}
    table |= {"inertia": [1.0] + [0.0] * 7, "algorithm": "balanced_kmeans", "seed": 1, "source": "/home/me/features"}
    (config.subclass_dir / "subclasses.json").write_text(json.dumps(table))
    write_run(config.run_dir, data, right=0.9, seed=1)
    write_run(config.baseline_dir, data, right=0.8, seed=2)
    return config, data


def page_of(config, data, **more):
    return Page(write_report(config, data, **more).read_text())


def test_page_holds_everything_itself(runs):
    page = page_of(*runs)
    assert {"script", "iframe", "object"}.isdisjoint(page.tags)
    links = [value for name, value in page.attributes if name in ("href", "src", "action", "srcset")]
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not any("url(" in value or "@import" in value for _, value in page.attributes)
    text = (runs[0].run_dir / "report.html").read_text()
    assert "http" not in text
    assert "/home/me" not in text
    assert str(runs[0].trainer.save_dir) not in text
    assert len(text) < 2_000_000


def test_page_shows_every_section_class_and_decodable_picture(runs):
    config, data = runs
    page = page_of(config, data)
    assert page.headings == ["Classes", "Scores", "Curves", "Pseudo labels", "Confusion", "Subclasses", "Images", "Run"]
    assert all(name in page.text for name in data.classes)
    pictures = list(page.images())
    assert len(pictures) == 5 * len(data.validation)  # image, target, baseline, USRN, entropy
    assert all(value for name, value in page.attributes if name == "alt")
    assert "2 × NVIDIA H100" in page.text
    assert "1 h 2 min, resumed at iteration 40" in page.text
    assert "How many are right" in page.text
    assert "all100.0100.053.153.1100.0100.0" in page.text  # of 8 x 40 labels, 30 + 7 x 20 are right
    assert "precision 50" in page.text  # at the end of a class's curve
    assert "× 2.00" in page.text  # of the first class among the pseudo labels, as of the labels


def test_names_cannot_become_markup(runs):
    text = write_report(*runs).read_text()
    assert "<b>sky" not in text
    assert "<script" not in text
    assert "&lt;b&gt;sky &amp;" in text


def test_page_of_a_baseline_compares_nothing(runs, tiny_configs):
    page = page_of(load_config(tiny_configs[0]), runs[1])
    assert page.headings == ["Classes", "Scores", "Curves", "Pseudo labels", "Confusion", "Subclasses", "Images", "Run"]
    assert "Best" in page.text
    assert "Gained most" not in page.text
    assert "of its baseline" not in page.text
    assert len(list(page.images())) == 4 * len(runs[1].validation)


@pytest.mark.parametrize(
    ("missing", "sections"),
    [
        ("tiny_usrn/history.jsonl", {"Pseudo labels"}),  # the baseline's curve is still there
        ("tiny_usrn/results.json", {"Classes", "Scores", "Confusion", "Images"}),
        ("tiny_usrn/images.csv", {"Images"}),
        ("tiny_usrn/stages.json", set()),
        ("tiny_usrn/preds", {"Images"}),
        ("tiny_usrn/entropy", set()),
        ("tiny_baseline", {"Subclasses"}),
    ],
)
def test_section_whose_files_are_missing_is_left_out(runs, missing, sections):
    config, data = runs
    everything = set(page_of(config, data).headings)
    path = config.run_dir.parent / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert set(page_of(config, data).headings) == everything - sections


def test_results_of_an_earlier_network_are_not_shown(runs):
    page = page_of(*runs, evaluated=False)
    assert {"Classes", "Confusion", "Images"}.isdisjoint(page.headings)
    assert "best mean IoU during training" in page.text


def test_page_of_a_new_run_has_what_is_known(runs):
    config, data = runs
    config = config.model_copy(update={"experim_name": "new_usrn"})
    config.run_dir.mkdir()
    assert page_of(config, data).headings == ["Run"]


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_browser_shows_the_page_without_complaint(runs, tmp_path):
    path, picture = write_report(*runs), tmp_path / "page.png"
    result = subprocess.run(
        [
            "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}", "--window-size=390,1500", f"--screenshot={picture}",
            path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in result.stderr
    with Image.open(picture) as image:
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
    assert len(colours) > 50
