"""All four stages on a data set as people bring it."""

import json
import shutil

import pytest
from PIL import Image

from tests.trainer.loop.test_batches import CPU
from trainer.stages import Options, clustering, run_stage, save_feature, train
from utils.config_file import load_config
from utils.errors import UsageError


@pytest.fixture
def dirty(demo_set, tiny_configs, tmp_path):
    """The folder of a data set in which nothing is wrong and little as expected, and its two configurations."""
    root = tmp_path / "Große Daten 照片"
    shutil.copytree(demo_set, root)
    voc = root / "VOCdevkit" / "VOC2012"
    images, masks, lists = voc / "JPEGImages", voc / "SegmentationClass", voc / "ImageSets" / "Segmentation"

    def change(number, kind, suffix, **how):
        path = images / f"train_{number:04}.jpg"
        image = Image.open(path).convert(kind)
        path.unlink()
        image.save(path.with_suffix(suffix), **how)

    change(0, "L", ".jpg")
    change(1, "RGBA", ".png")
    change(2, "CMYK", ".jpg")
    change(3, "LA", ".png")
    turned = Image.Exif()
    turned[0x0112] = 6  # stored lying, to be looked at standing
    change(4, "RGB", ".jpg", exif=turned)
    mask = Image.open(masks / "train_0004.png")
    mask.transpose(Image.Transpose.ROTATE_270).save(masks / "train_0004.png")
    for number in range(5, 10):
        path = masks / f"train_{number:04}.png"
        Image.open(path).convert("RGB").save(path)
    for number in (10, 11):  # one pixel high
        image = Image.open(images / f"train_{number:04}.jpg").crop((0, 0, 40, 1))
        image.save(images / f"train_{number:04}.jpg")
        Image.open(masks / f"train_{number:04}.png").crop((0, 0, 40, 1)).save(masks / f"train_{number:04}.png")
    (images / "loop.jpg").symlink_to(images / "loop.jpg")
    (images / "up").symlink_to(images)
    for name in ("train", "val"):
        text = (lists / f"{name}.txt").read_text()
        (lists / f"{name}.txt").write_bytes(text.replace("\n", "\r\n").encode())
    with open(voc / "classes.txt", "a") as file:
        file.write("unicorn 1 2 3\n")
    keys = [f"data_dir={root}", "trainer.epochs=1", "val_loader.batch_size=1", "num_images_all=12"]
    return root, [load_config(path, keys) for path in tiny_configs]


@pytest.mark.parametrize("n_labelled", [2, 12])
def test_all_stages_run_on_dirty_data_with_an_absent_class_and_few_labels(dirty, n_labelled):
    _, configs = dirty
    baseline, usrn = (config.model_copy(update={"n_labeled_examples": n_labelled}) for config in configs)
    assert n_labelled != 2 or n_labelled < baseline.train_supervised.batch_size
    for stage in (train, save_feature, clustering):
        stage(baseline, Options(), CPU)
    train(usrn, Options(), CPU)
    table = json.loads((baseline.subclass_dir / "subclasses.json").read_text())
    assert (table["classes"][-1], table["counts"][-1], table["sizes"][-1]) == ("unicorn", 1, 0)
    for name in ("test", "summary"):
        for config in (baseline, usrn) if name == "test" else (usrn,):
            run_stage(name, config, Options(), CPU)
    assert (usrn.run_dir / "comparison.png").is_file()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_stages_2_and_3_refuse_a_usrn_configuration(dirty, tmp_path, elsewhere):
    usrn = dirty[1][1]
    if elsewhere:
        usrn = usrn.model_copy(update={"label_subcls": str(tmp_path / "elsewhere" / "maps")})
    for stage in (save_feature, clustering):
        with pytest.raises(UsageError, match="tiny_usrn: is a USRN run; stages 2 and 3 are its baseline's") as error:
            stage(usrn, Options(), CPU)
        assert str(usrn.baseline_dir) in str(error.value)
    assert not usrn.baseline_dir.exists()


def test_run_without_a_valid_validation_pixel_is_refused_before_it_trains_or_evaluates(dirty):
    root, (config, _) = dirty
    for path in (root / "VOCdevkit/VOC2012/SegmentationClass").glob("val_*.png"):
        Image.new("L", Image.open(path).size, 255).save(path)
    with pytest.raises(UsageError, match="validation: none of the 5 masks has a pixel of a class"):
        run_stage("train", config, Options(), CPU)
    assert not list(config.run_dir.glob("*.pth"))
    run_stage("train", config.model_copy(update={"trainer": config.trainer.model_copy(update={"val": False})}),
              Options(), CPU)  # fmt: skip
    assert "trained without validation; " in (config.run_dir / "log.txt").read_text()
    assert "-100" not in (config.run_dir / "log.txt").read_text()
    with pytest.raises(UsageError, match="validation: none of the 5 masks has a pixel of a class"):
        run_stage("test", config, Options(), CPU)
