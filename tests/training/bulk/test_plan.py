import json
import os
import tarfile
import zipfile

import numpy as np
import pytest

from keras_attn.pipelines.images.files import image_files, read_images
from keras_attn.training.bulk import formats
from keras_attn.training.bulk.merge import merge
from keras_attn.training.bulk.plan import Plan
from keras_attn.training.evaluation.predict import predict
from keras_attn.training.trained import load_trained
from tests.training import tiny_models as tiny
from tests.training.bulk import jobs


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    jobs.photos(folder / "photos")
    tiny.save_colour_model(folder)
    return folder


@pytest.fixture(scope="module")
def done(given):
    plan = jobs.make("predict", given / "colours.keras", given / "photos", given / "a")
    return jobs.compute(plan)


def test_predictions_are_those_of_single_images(given, done):
    expected, problems = predict(
        given / "colours.keras", [given / "photos"], on_corrupt="skip"
    )
    rows = done.read_shards()
    found = list(formats.records(rows))
    assert [str(given / "photos" / each["name"]) for each in found] == [
        str(file) for file in image_files([given / "photos"])
    ]
    (corrupt,) = [each for each in found if "problem" in each]
    assert corrupt == {"name": "b/broken.jpg", "problem": problems[0].reason}
    for one, other in zip(
        (each for each in found if each != corrupt), expected, strict=True
    ):
        classes = [answer["class"] for answer in other["predictions"]]
        assert one["classes"] == classes
        shares = [answer["probability"] for answer in other["predictions"]]
        np.testing.assert_allclose(one["probabilities"], shares, rtol=1e-5)


def test_bytes_do_not_depend_on_the_order_of_shards_or_the_time(given, done, tmp_path):
    plan = jobs.make("predict", given / "colours.keras", given / "photos", tmp_path)
    jobs.compute(plan, [2, 0, 3])
    before = {path: os.stat(path).st_mtime_ns for path in tmp_path.glob("*.npz")}
    again = Plan.open(tmp_path)
    assert again.state().done == len(plan) - jobs.SHARD
    jobs.compute(again)
    assert jobs.contents(tmp_path) == jobs.contents(done.path)
    assert all(os.stat(path).st_mtime_ns == time for path, time in before.items())
    assert again.state().done == len(plan) == 15 and not again.attempts()
    with zipfile.ZipFile(next(tmp_path.glob("*.npz"))) as archive:
        assert {each.date_time[0] for each in archive.infolist()} == {1980}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_formats_hold_the_same(given, done, tmp_path, kind):
    if kind == "parquet":
        pytest.importorskip("pyarrow", exc_type=ImportError)
    rows = done.read_shards()
    rows["maps"] = np.random.default_rng(0).random((len(done), 2, 3, 4), "float32")
    rows["maps"] = rows["maps"].astype("float16")
    rows["maps"][rows["problem"] != ""] = 0
    columns = {**done.columns, "maps": ("float16", (2, 3, 4))}
    contents = []
    for name in ("one", "two"):
        with open(tmp_path / name, "wb") as file:
            formats.write(kind, file, rows)
        read = formats.read(kind, tmp_path / name, columns)
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]
    assert sorted(read) == sorted(rows)
    for name, array in rows.items():
        np.testing.assert_array_equal(read[name], array, name)


def test_names_that_are_no_unicode():
    assert formats.printable(["ä", "a\udcff"]).tolist() == ["ä", "a\\xff"]


def test_the_plan_refuses_what_would_be_mixed(given, done, tmp_path):
    other = tiny.colour_model(class_names=("r", "g", "b"))
    other.save(tmp_path / "other.keras")
    model, photos = given / "colours.keras", given / "photos"
    jobs.photos(tmp_path / "more", 13)
    cases = {
        "model=": ("predict", tmp_path / "other.keras", photos, {}),
        "task=predict there, embed now": ("embed", model, photos, {}),
        "top=5 there, 2 now": ("predict", model, photos, {"top": 2}),
        "format=npz there, jsonl now": ("predict", model, photos, {"format": "jsonl"}),
        "shard=4 there, 5 now": ("predict", model, photos, {"shard": 5}),
        "listing=": ("predict", model, tmp_path / "more", {}),
    }
    for words, (task, path, source, options) in cases.items():
        with pytest.raises(
            ValueError, match="bulk job .* were made otherwise"
        ) as error:
            jobs.make(task, path, source, done.path, **options)
        assert words in str(error.value) and "\n" not in str(error.value)


def test_what_changes_after_planning_is_refused(given, tmp_path):
    photos = jobs.photos(tmp_path / "photos", 5)
    model = tiny.save_colour_model(tmp_path)
    plan = jobs.make("predict", model, photos, tmp_path / "out")
    tiny.colour_model(class_names=("r", "g", "b")).save(model)
    with pytest.raises(ValueError, match="model of the plan .* another one now"):
        jobs.compute(plan)
    tiny.save_image(photos / "new.png", tiny.plain_image())
    with pytest.raises(ValueError, match="has changed since: 7 images"):
        len(Plan.open(plan.path).images)


@pytest.mark.parametrize(
    "damage",
    [b"", b"{", b'{"format": "keras-attn bulk", "version": 1, "maker": {}}'],
)
def test_half_a_plan(given, tmp_path, damage):
    (tmp_path / "plan.json").write_bytes(damage)
    with pytest.raises(ValueError, match="plan.json, which is damaged"):
        jobs.make("predict", given / "colours.keras", given / "photos", tmp_path)


def test_a_file_that_goes_after_planning_is_a_row_with_a_reason(given, tmp_path):
    photos = jobs.photos(tmp_path / "photos", 5)
    plan = jobs.make("predict", given / "colours.keras", photos, tmp_path / "out")
    (photos / "a" / "000.png").unlink()
    first, *_ = formats.records(jobs.compute(plan).read_shards())
    assert "cannot be read (No such file" in first["problem"]


def test_merged_tables(given, done, tmp_path):
    summary = merge(done.path, tmp_path / "all.npz")
    assert (summary["images"], summary["problems"], summary["aside"]) == (15, 1, [])
    with np.load(tmp_path / "all.npz") as merged:
        for name, array in done.read_shards().items():
            np.testing.assert_array_equal(merged[name], array)
    for kind in ("jsonl", "parquet"):
        if kind == "parquet":
            pytest.importorskip("pyarrow", exc_type=ImportError)
        out = tmp_path / kind
        plan = jobs.make(
            "predict", given / "colours.keras", given / "photos", out, format=kind
        )
        with pytest.raises(ValueError, match="of 15 images are still to be computed"):
            merge(out)
        rows = done.read_shards()
        for shard in plan.shards():
            part = {
                name: array[shard.start : shard.stop] for name, array in rows.items()
            }
            plan.write_shard(shard, part)
        path = merge(out)["output"]
        read = formats.read(kind, path, plan.columns)
        assert list(formats.records(read)) == list(formats.records(done.read_shards()))
    lines = (tmp_path / "jsonl" / "merged.jsonl").read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == list(read["name"])


def test_readable_images_around_a_corrupt_one_keep_their_rows(given, done):
    trained = load_trained(given / "colours.keras")
    files = image_files([given / "photos"])
    images, kept, _ = read_images(files, trained.spec, "skip")
    labels = trained.probabilities(images).argmax(-1)
    rows = done.read_shards()
    by_name = dict(zip(rows["name"], rows["labels"][:, 0], strict=True))
    names = [file.relative_to(given / "photos").as_posix() for file in kept]
    assert [by_name[name] for name in names] == labels.tolist()


def sources(folder, files):
    """The same images as a list, a table, a tar, a Parquet file and behind a URL."""
    (folder / "all.txt").write_text("".join(f"{file}\n" for file in files))
    lines = "".join(f"{file},x\n" for file in files)
    (folder / "all.csv").write_text(f"path,label\n{lines}")
    with tarfile.open(folder / "all.tar", "w") as archive:
        for number, file in enumerate(files):
            archive.add(file, f"{number:03}{file.suffix}")
    yield from (folder / "all.txt", folder / "all.csv", folder / "all.tar")
    yield f"file://{folder}/all.tar"
    pyarrow = pytest.importorskip("pyarrow", exc_type=ImportError)
    parquet = pytest.importorskip("pyarrow.parquet", exc_type=ImportError)
    contents = [file.read_bytes() for file in files]
    parquet.write_table(pyarrow.table({"image": contents}), folder / "all.parquet")
    yield folder / "all.parquet"


def checksums(plan):
    worker = jobs.StandIn(*plan.plain())
    rows = [worker.rows(shard)["labels"] for shard in plan.shards()]
    return np.concatenate(rows)


def test_all_kinds_of_sources(given, done, tmp_path):
    pytest.importorskip("fsspec")
    expected = checksums(done)
    assert len(np.unique(expected)) > 10
    files = [given / "photos" / name for name in done.read_shards()["name"]]
    for number, source in enumerate(sources(tmp_path, files)):
        out = tmp_path / str(number)
        plan = jobs.make("predict", given / "colours.keras", source, out)
        np.testing.assert_array_equal(checksums(plan), expected, str(source))
