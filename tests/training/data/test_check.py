"""`keras-attn data --check`: text, page and exit code."""

import shutil

import pytest
from PIL import Image

from keras_attn.pipelines.images.duplicates import repeated_files
from keras_attn.pipelines.sources.load import load_source
from keras_attn.training import cli
from keras_attn.training.data.load import load_data
from tests.pipelines.images.test_duplicates import scene
from tests.training.tiny import tiny_recipe


def folder(root, parts=("",), each=4):
    seed = 0
    for part in parts:
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for number in range(each):
                seed += 1
                scene(seed, 30).save(root / part / name / f"{number}.png")
    return root


def checked(capsys, *arguments):
    code = cli.main(["data", *map(str, arguments), "--check", "--quiet"])
    return code, capsys.readouterr()


def test_nothing_is_wrong_in_any_layout(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = folder(tmp_path / "plain")
    packed = shutil.make_archive(tmp_path / "packed", "zip", plain)
    nested = folder(tmp_path / "nested", ("x", "y"))
    table = tmp_path / "table"
    shutil.copytree(plain / "a", table)
    rows = "0.png,u", "1.png,v", "2.png,v", "3.png,u"
    (table / "labels.csv").write_text("\n".join(("file,label", *rows)))
    parts = folder(tmp_path / "parts", ("train", "valid", "test"))
    for given in ([plain], [packed], [table], [nested, "--depth", 2], [parts]):
        code, printed = checked(capsys, *given)
        assert (code, printed.err) == (0, ""), printed
        assert "Faults: 0. Page: data_check.html" in printed.out
    assert "official: 8 train, 8 validation, 8 test" in printed.out
    assert "Classes: 12 images each" in printed.out
    assert checked(capsys, "folder", "--data", plain)[0] == 0


def damage(root):
    (root / "train/a/0.png").write_bytes((root / "train/a/0.png").read_bytes()[:400])


def empty(root):
    (root / "train/a/0.png").write_bytes(b"")


def shrink(root):
    Image.new("RGB", (9, 40)).save(root / "test/b/tiny.png")


def repeat(root, name="train/a/again.png"):
    shutil.copy(root / "train/a/0.png", root / name)


def mislabel(root):
    repeat(root, "train/b/again.png")


def leak(root):
    repeat(root, "test/a/again.png")


def repeat_nearly(root, name="train/a/near.jpg"):
    Image.open(root / "train/a/0.png").resize((64, 64)).save(root / name)


def leak_nearly(root):
    repeat_nearly(root, "test/a/near.jpg")


@pytest.mark.parametrize(
    "change, faults, line",
    [
        (damage, 1, "Damaged images: 1"),
        (empty, 1, "Empty files and other formats: 1"),
        (shrink, 1, "Images below 16 pixels: 1"),
        (repeat, 1, "Same image in one class and part: 1"),
        (mislabel, 1, "Same image in two classes: 1"),
        (leak, 1, "Same image in two parts of the split: 1"),
        (leak_nearly, 1, "Nearly the same image in two parts of the split: 1"),
        (repeat_nearly, 0, "Nearly the same image in one class and part: 1"),
    ],
)
def test_every_fault_is_found(tmp_path, capsys, change, faults, line):
    root = folder(tmp_path / "photos", ("train", "test"))
    (root / "notes.txt").write_text("no image")
    change(root)
    page = tmp_path / "page.html"
    code, printed = checked(capsys, root, "--output", page)
    assert code == faults and f"\n{line}\n" in printed.out, printed.out
    assert f"Faults: {faults}." in printed.out
    assert "Left out: 1 file that is no image or in no class (notes.txt)" in printed.out
    text = page.read_text()
    assert line in text
    pictures = {damage: 0, empty: 0, shrink: 1}.get(change, 2)
    assert text.count('src="data:image/') == pictures


def test_the_page_is_the_only_file(tmp_path, capsys):
    root = folder(tmp_path / "photos")
    assert checked(capsys, root, "--output", tmp_path / "page.png")[0] == 2
    assert checked(capsys, root, "--output", tmp_path / "page.html")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.html", "photos"]


def test_images_in_memory_are_checked(tmp_path, capsys):
    options = ["--output", tmp_path / "page.html", "--set", "examples=64"]
    _, printed = checked(capsys, "generated", *options, "image_size=32")
    assert "Formats and modes: RGB: 64" in printed.out, printed


@pytest.mark.parametrize("in_memory", [1, 0])
def test_training_warns_of_files_in_two_parts(tmp_path, capsys, in_memory):
    root = folder(tmp_path / "photos", ("train", "test"))
    recipe = tiny_recipe(dataset="folder", split="official", in_memory=in_memory)
    load_data(recipe, root)
    assert "in two parts" not in capsys.readouterr().err
    leak(root)
    load_data(recipe, root)
    printed = capsys.readouterr().err
    assert "in two parts of the split, which flatters the accuracy: 1 (" in printed
    assert "train/a/0.png" in printed and "test/a/again.png" in printed


def test_files_of_many_bytes_are_not_compared(tmp_path):
    root = folder(tmp_path / "photos", ("train", "test"))
    leak(root)
    source = load_source("folder", root)
    parts = {
        source.files[index]: part
        for part, chosen in source.official.items()
        for index in chosen
    }
    assert len(repeated_files(source, parts)) == 1
    assert repeated_files(source, parts, most=9) == []
