import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from rdrec_core.errors import DatasetError, InputError
from tests.data import ROOT, real_data
from tests.purchases import amazon_lines, prepared, write_lines, write_p5
from training.cli import main
from training.data import ingest, source_jobs
from training.data.dataset import CATALOGUE, INTERACTIONS, ITEMS, RATIONALES, REVIEWS, USERS, Dataset
from training.data.prepare import PrepareConfig, prepare

TABLES = ("interactions", "reviews", "items", "users")


def tables(folder):
    return {name: pl.read_parquet(folder / f"{name}.parquet") for name in TABLES}


def same(a, b):
    return all(x.equals(y) for x, y in zip(tables(a).values(), tables(b).values(), strict=True))


def test_amazon_files_become_the_dataset_that_they_describe(tmp_path, capsys):
    lines = amazon_lines()
    reviews = write_lines(tmp_path / "reviews.json.gz", lines)
    meta = write_lines(tmp_path / "meta.json", [{"asin": f"ITEM{n:03d}", "title": f"Thing {n}"} for n in range(15)])
    out = tmp_path / "out"
    assert main(["prepare", "--reviews", str(reviews), "--metadata", str(meta), "--out", str(out)]) == 0
    screen = capsys.readouterr().out
    assert "interactions" in screen
    assert "320" in screen

    made = tables(out)
    for frame, schema in zip(made.values(), (INTERACTIONS, REVIEWS, ITEMS, USERS), strict=True):
        assert dict(frame.schema) == (schema | CATALOGUE if schema is ITEMS else schema)
    dataset = Dataset(out)
    user_ids, item_ids = dataset.users["user_id"].to_list(), dataset.items["item_id"].to_list()
    indptr, items = dataset.sequences("test")
    for index, user in enumerate(user_ids):
        own = sorted((line for line in lines if line["reviewerID"] == user), key=lambda line: line["unixReviewTime"])
        assert [item_ids[i] for i in items[indptr[index] : indptr[index + 1]]] == [line["asin"] for line in own]
        assert item_ids[dataset.targets("test")[index]] == own[-1]["asin"]
        assert item_ids[dataset.targets("val")[index]] == own[-2]["asin"]
    titles = dict(dataset.items.select("item_id", "title").iter_rows())
    assert titles["ITEM003"] == "Thing 3"
    assert titles["ITEM019"] is None
    assert len(dataset.items["label"].str.len_chars().unique()) == 1
    joined = (
        made["reviews"]
        .join(made["users"], on="user_index")
        .join(made["items"], on="item_index")
        .select("user_id", "item_id", "text", "rating")
    )
    expected = {(li["reviewerID"], li["asin"], li["reviewText"], li["overall"]) for li in lines}
    assert set(joined.iter_rows()) == expected
    places = made["reviews"].join(made["interactions"], on=["user_index", "item_index"])
    assert (places["split"] == places["split_right"]).all()
    assert set(made["reviews"]["explanation"]) == {"The handle of it is fine."}


def as_2023(line):
    return {
        "user_id": line["reviewerID"],
        "parent_asin": line["asin"],
        "text": line["reviewText"],
        "rating": line["overall"],
        "timestamp": line["unixReviewTime"] * 1000,
    }


def as_table(lines):
    names = {"reviewerID": "who", "asin": "what", "reviewText": "text", "overall": "rating"}
    names["unixReviewTime"] = "timestamp"
    return [{names[key]: value for key, value in line.items()} for line in lines]


@pytest.mark.parametrize("kind", ["2014", "2018 plain", "2023", "csv", "tsv.gz", "parquet", "three files"])
def test_every_format_gives_the_same_dataset(tmp_path, kind):
    lines = amazon_lines()
    columns = {"user": "who", "item": "what"} if kind in ("csv", "tsv.gz", "parquet") else {}
    files = (tmp_path / "reviews",)
    if kind == "2014":
        write_lines(files[0], [repr(line) for line in lines])
    elif kind == "2018 plain":
        write_lines(files[0], [*map(json.dumps, lines[:-1]), "", json.dumps(lines[-1])])
    elif kind == "2023":
        files = (write_lines(tmp_path / "r.jsonl.gz", map(as_2023, lines)),)
    elif kind == "parquet":
        files = (tmp_path / "r.parquet",)
        pl.DataFrame(as_table(lines)).write_parquet(files[0], row_group_size=50)
    elif kind == "three files":
        files = tuple(write_lines(tmp_path / f"r{n}.json", lines[n * 107 : (n + 1) * 107]) for n in range(3))
    else:
        files = (tmp_path / f"r.{kind}",)
        opener = gzip.open if kind.endswith("gz") else Path.open
        with opener(files[0], "wt", newline="") as file:
            rows = as_table(lines)
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if "tsv" in kind else ",")
            writer.writeheader()
            writer.writerows(rows)
    prepare(PrepareConfig(out=tmp_path / "other", reviews=files, columns=columns))
    assert same(prepared(tmp_path), tmp_path / "other")


def test_csv_texts_may_hold_line_breaks_and_bad_rows_are_named_by_line(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text('user,item,text,timestamp\nu,i,"two\nlines, and a comma",5\nu,j\nu,k,fine,soon\nu,l,fine,6\n')
    made = prepare(PrepareConfig(out=tmp_path / "out", reviews=(path,)))
    assert made.bad == (
        f"  {path}:4: wrong number of fields (2, not 4)",
        f"  {path}:5: timestamp is neither a number nor a date: soon (--time-format names its form)",
    )
    assert tables(tmp_path / "out")["reviews"]["text"].to_list() == ["two lines, and a comma", "fine"]


def test_blocks_and_worker_processes_do_not_show_in_the_result(tmp_path, monkeypatch):
    one = prepared(tmp_path)
    monkeypatch.setattr(ingest, "SMALL_INPUT_BYTES", 0)
    monkeypatch.setattr(source_jobs, "BLOCK_BYTES", 4096)
    lines = amazon_lines()
    files = tuple(write_lines(tmp_path / f"r{n}.json.gz", lines[n * 107 : (n + 1) * 107]) for n in range(3))
    made = prepare(PrepareConfig(out=tmp_path / "many", reviews=files, workers=2))
    assert made.n_rows == 320
    assert same(one, tmp_path / "many")
    assert not list((tmp_path / "many").glob("**/parts*"))


def test_bad_lines_are_counted_and_shown_by_line_number(tmp_path, capsys):
    lines = amazon_lines()
    reviews = write_lines(tmp_path / "r.json", [*lines[:5], "{oops", *lines[5:], {"asin": "x"}])
    assert main(["prepare", "--reviews", str(reviews), "--out", str(tmp_path / "out")]) == 0
    screen = capsys.readouterr().out
    assert f"{reviews}:6: neither JSON" in screen
    assert "dropped: no reviewerID (line 322)" in " ".join(screen.split())


@pytest.mark.parametrize(("allowed", "status"), [(12, 0), (11, 2)])
def test_too_many_bad_lines_stop_the_run_with_nothing_written(tmp_path, capsys, allowed, status):
    good = amazon_lines()
    files = [write_lines(tmp_path / f"r{n}.json", [*good[n::2], *["junk"] * 6]) for n in range(2)]
    out = tmp_path / "data" / "out"
    arguments = ["prepare", "--reviews", *map(str, files), "--out", str(out), "--max-bad-lines", str(allowed)]
    assert main(arguments) == status
    assert out.exists() == (status == 0)
    if status:
        error = capsys.readouterr().err
        assert "--max-bad-lines" in error
        shown = [line.rpartition(": ")[0].strip() for line in error.splitlines() if "neither JSON" in line]
        assert shown == [f"{files[0]}:{n}" for n in range(161, 167)] + [f"{files[1]}:{n}" for n in range(161, 165)]
        assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"x" * 10**6)[:-20], "cannot be read"),
        (b"", "no review could be read"),
        (b"PK\x03\x04....", "zip archive or a spreadsheet"),
        (b"one word\n".replace(b" ", b"_"), "neither JSON, nor Parquet, nor a table"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, content, message):
    path = tmp_path / "r.gz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=message) as error:
        prepare(PrepareConfig(out=tmp_path / "out", reviews=(path,)))
    assert str(path) in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "reviews"),
        ({"reviews": (Path("a"),), "p5": Path("b")}, "reviews"),
        ({"p5": Path("b"), "columns": {"user": "u"}}, "p5"),
        ({"reviews": (Path("a"),), "labels": "original"}, "labels"),
        ({"reviews": (Path("a"),), "columns": {"buyer": "u"}}, "columns"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, options, field):
    with pytest.raises(InputError) as error:
        prepare(PrepareConfig(out=tmp_path / "out", **options))
    assert error.value.field == field


def test_an_existing_dataset_is_replaced_only_by_force_and_anything_else_never(tmp_path):
    out = prepared(tmp_path)
    config = PrepareConfig(out=out, reviews=(tmp_path / "reviews.json.gz",), name="second")
    with pytest.raises(InputError, match="--force"):
        prepare(config)
    prepare(config.model_copy(update={"force": True}))
    assert Dataset(out).info.name == "second"
    (out / "dataset.json").unlink()
    with pytest.raises(InputError, match="not a dataset"):
        prepare(config.model_copy(update={"force": True}))


def test_a_killed_run_leaves_nothing_that_looks_finished_and_a_rerun_starts_clean(tmp_path):
    lines = [line | {"reviewText": "word " * 1000} for line in amazon_lines(100, 60, 40)]
    reviews = write_lines(tmp_path / "reviews.json", lines)
    out = tmp_path / "data" / "out"
    command = [sys.executable, "-m", "training.cli", "prepare", "--reviews", str(reviews), "--out", str(out)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True, **silent)
    while not list(tmp_path.glob("data/.out.tmp-*/parts/*.parquet")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert list(out.parent.glob(".out.tmp-*")), "a kill leaves its temporary folder"
    assert main(command[3:]) == 0
    assert Dataset(out).info.n_interactions == 4_000
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_training_review_that_repeats_a_held_out_one_is_set_aside(tmp_path):
    lines = amazon_lines()
    own = sorted((line for line in lines if line["reviewerID"] == "USER007"), key=lambda line: line["unixReviewTime"])
    own[0]["reviewText"] = own[-1]["reviewText"].upper()
    reviews = write_lines(tmp_path / "r.json", lines)
    made = prepare(PrepareConfig(out=tmp_path / "clean", reviews=(reviews,)))
    assert (made.reviews.n_set_aside, made.info.n_reviews, made.info.n_interactions) == (1, 319, 320)
    assert own[0]["reviewText"] not in tables(tmp_path / "clean")["reviews"]["text"].to_list()
    made = prepare(PrepareConfig(out=tmp_path / "paper", reviews=(reviews,), protocol="paper"))
    assert (made.reviews.n_set_aside, made.info.n_reviews) == (0, 320)


def test_clean_labels_and_features_do_not_depend_on_held_out_interactions(tmp_path):
    """The same training histories with other validation and test items, times and texts give the same labels."""
    lines = amazon_lines(60, 20, 8)
    last = {}
    for line in sorted(lines, key=lambda line: line["unixReviewTime"]):
        last.setdefault(line["reviewerID"], []).append(line)
    changed = []
    for own in last.values():
        held = own[-2:]
        unseen = [f"ITEM{n:03d}" for n in range(20) if f"ITEM{n:03d}" not in {line["asin"] for line in own}]
        changed += own[:-2]
        changed += [
            line | {"asin": item, "reviewText": "A gadget, the gadget, my gadget."}
            for line, item in zip(held, unseen, strict=False)
        ]
    labels = []
    for name, version in (("a", lines), ("b", changed)):
        reviews = write_lines(tmp_path / f"{name}.json", version)
        made = prepare(PrepareConfig(out=tmp_path / name, reviews=(reviews,)))
        assert "gadget" not in made.reviews.features
        labels.append(tables(tmp_path / name)["items"].select("item_id", "label"))
    assert labels[0].equals(labels[1])


HISTORIES = {1: [1, 2, 3, 4, 5], 2: [3, 1, 4, 2, 6], 3: [5, 6, 1, 2, 3]}


def record(user, item, explanation, preference="p", attributes="a"):
    return {
        "user": user,
        "item": item,
        "explanation": explanation,
        "feature": "x",
        "user_preference": preference,
        "item_attribution": attributes,
    }


RECORDS = {
    "train": [
        record(1, 2, "nice  lid", "lids", "has a lid"),
        record(1, 5, "test item"),
        record(2, 5, "never bought"),
    ],
    "val": [record(2, 1, "ok", "q", "b")],
    "test": [],
}


def ids(folder, name):
    joined = pl.read_parquet(folder / f"{name}.parquet")
    made = tables(folder)
    return joined.join(made["users"], on="user_index", maintain_order="left").join(
        made["items"], on="item_index", maintain_order="left"
    )


def test_a_p5_folder_under_paper_is_as_published(tmp_path):
    p5 = write_p5(tmp_path / "p5", HISTORIES, explanation_rationale=RECORDS)
    (p5 / "negative.txt").write_text("1 6\n2 5\n3 4\n")
    meta = write_lines(tmp_path / "meta.json", [{"asin": "item-2", "title": "Two"}, {"asin": "other", "title": "No"}])
    out = tmp_path / "out"
    prepare(PrepareConfig(out=out, p5=p5, protocol="paper", metadata=(meta,)))
    dataset = Dataset(out)
    assert dataset.items.drop_nulls("title").select("item_id", "title").rows() == [("item-2", "Two")]
    assert dataset.users["user_id"].to_list() == ["user-1", "user-2", "user-3"]
    assert dict(dataset.items.select("item_id", "label").iter_rows()) == {f"item-{n}": str(n) for n in range(1, 7)}
    indptr, items = dataset.sequences("test")
    assert {u + 1: (items[indptr[u] : indptr[u + 1]] + 1).tolist() for u in range(3)} == HISTORIES
    reviews = ids(out, "reviews").select("user_id", "item_id", "explanation", "split").rows()
    assert reviews == [
        ("user-1", "item-2", "nice lid", "train"),
        ("user-1", "item-5", "test item", "train"),
        ("user-2", "item-1", "ok", "val"),
    ]
    assert pl.read_parquet(out / "negatives.parquet").rows() == [(0, [5]), (1, [4]), (2, [3])]
    assert dataset.info.negatives
    read = {"sequential.txt", "datamaps.json", "explanation_rationale.json", "negative.txt", "meta.json"}
    assert set(dataset.info.source_sha256) == read


def test_a_p5_folder_under_clean_trains_on_nothing_held_out(tmp_path):
    out = tmp_path / "out"
    prepare(PrepareConfig(out=out, p5=write_p5(tmp_path / "p5", HISTORIES, explanation_rationale=RECORDS)))
    reviews = ids(out, "reviews").select("user_id", "item_id", "split").rows()
    assert reviews == [("user-1", "item-2", "train"), ("user-1", "item-5", "test"), ("user-2", "item-1", "train")]
    rationales = ids(out, "rationales")
    assert dict(pl.read_parquet_schema(out / "rationales.parquet")) == RATIONALES
    assert rationales.select("user_id", "item_id", "user_preference", "item_attributes", "teacher").rows() == [
        ("user-1", "item-2", "lids", "has a lid", "p5"),
        ("user-2", "item-1", "q", "b", "p5"),
    ]
    assert rationales["use"].all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("sequential.txt", "1 2 x\n", r"sequential\.txt: item x is neither a whole number nor an id"),
        ("sequential.txt", "1 2 3\n1 3\n", r"sequential\.txt:2: user 1 has a line already"),
        ("sequential.txt", "1 2 99\n", "item 99 is not in datamaps"),
        ("datamaps.json", "{}", "id2user"),
        ("explanation.json", '{"train": [{"user": 1}]}', "explanation"),
        ("explanation.json", '{"extra": [{"user": 1, "item": 1, "explanation": "x"}]}', "train, val and test"),
    ],
)
def test_a_fault_in_a_p5_folder_is_named(tmp_path, name, content, message):
    p5 = write_p5(tmp_path / "p5", HISTORIES)
    (p5 / name).write_text(content)
    with pytest.raises(DatasetError, match=message):
        prepare(PrepareConfig(out=tmp_path / "out", p5=p5))


def test_a_folder_without_sequences_is_no_p5_folder(tmp_path):
    with pytest.raises(DatasetError, match=r"sequential\.txt is missing"):
        prepare(PrepareConfig(out=tmp_path / "out", p5=tmp_path))


@pytest.mark.parametrize(("name", "counts"), [("beauty", (22363, 12101, 198502)), ("toys", (19412, 11924, 167597))])
def test_the_published_folders_give_the_published_counts(tmp_path, name, counts):
    info = prepare(PrepareConfig(out=tmp_path / name, p5=real_data(name), labels="random")).info
    assert (info.n_users, info.n_items, info.n_interactions) == counts


def test_gift_cards_by_an_independent_reading(tmp_path):
    folder = real_data("gift-cards")
    made = prepare(PrepareConfig(out=tmp_path / "gc", reviews=(folder / "Gift_Cards_5.json.gz",)))
    with gzip.open(folder / "Gift_Cards_5.json.gz", "rt") as file:
        lines = [json.loads(line) for line in file]
    pairs = {(line["reviewerID"], line["asin"]) for line in lines}
    assert made.n_rows == len(lines) == 2972
    assert made.info.n_interactions == len(pairs)
    assert made.n_repeats == len(lines) - len(pairs)
    assert (made.info.n_users, made.info.n_items) == (458, 148)
