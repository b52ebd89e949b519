import csv
import gzip
import json

import polars as pl
import pytest

from rdrec_core.errors import InputError
from tests.purchases import amazon_lines, prepared, write_lines, write_p5
from tests.small_dataset import write_small_dataset
from training.data import catalogue as cat
from training.data.dataset import Dataset
from training.data.metadata import METADATA, MetadataNames, metadata_row
from training.data.prepare import PrepareConfig, prepare
from training.data.sample import METADATA_FILE, REVIEWS_FILE, write_sample
from training.data.summary import catalogue_rows
from training.data.values import Missing, Notes
from training.data.words import clean, clean_name


def record(columns=None, **row):
    values = metadata_row(row, MetadataNames.of(columns or {}), Notes())
    made = dict(zip(METADATA.names, values, strict=True))
    made["attributes"] = {entry["name"]: entry["values"] for entry in made["attributes"] or []}
    return {name: value for name, value in made.items() if value}


# -- markup ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("Dice &amp;amp;amp; cards, 4&amp;#34; wide", 'Dice & cards, 4" wide'),
        ("<p>Soft<br/>and <B class='x'>warm</B></p>", "Soft and warm"),
        ("one <!-- hidden --> two<script>var a = 1;</script> three <style>p {a: b;}", "one two three"),
        ("I <3 it, 2 < 4 > 1, x <y and z> w", "I <3 it, 2 < 4 > 1, x <y and z> w"),
        (["First.", "Second."], "First. Second."),
        (7, ""),
    ],
)
def test_markup_goes_and_words_stay(raw, plain):
    assert clean(raw) == plain


@pytest.mark.parametrize(
    "source",
    [
        '<span class="a">Kite</span> var aPageStart = (new Date()).getTime(); if (window.ue) { ues("t0"); }',
        "&lt;script&gt;P.when('x').execute(function(a) { a.b(); })&lt;/script&gt; Kite",
        ".a-box { padding: 0; border: none; }",
        "NaN",
        "null",
    ],
)
def test_page_source_and_words_for_nothing_are_no_title(source):
    assert clean_name(source) == ""


@pytest.mark.parametrize("title", ["Function (the band): live", "Map {large}", "Variable Star", "Window of the World"])
def test_titles_with_odd_words_stay(title):
    assert clean_name(title) == title


# -- records -----------------------------------------------------------------------------------------------------------


def test_amazon_2014_words_are_found():
    made = record(
        asin="A", title="Loom", brand="Weavers", categories=[["Toys", "Crafts"], ["Toys", "Looms"]],
        description="A <b>loom</b>.", price=9.5, imUrl="http://x", related={"also_bought": ["B"]},
        salesRank={"Toys": 3},
    )  # fmt: skip
    assert made == {
        "item_id": "A", "title": "Loom", "brand": "Weavers", "categories": ["Toys", "Crafts", "Looms"],
        "description": "A loom.", "attributes": {"price": ["9.5"]},
    }  # fmt: skip


def test_amazon_2018_words_are_found_and_what_customers_did_is_left_out():
    made = record(
        asin="A", title="Loom", brand="Visit Amazon's Weavers Page", category=["Toys", "Toys", "</span></span>"],
        main_cat="Office", description=["One.", "", "Two."], feature=["Wide", "Light &amp; small"], price="$1,299.00",
        also_buy=["B"], also_view=["C"], rank=["5 in Toys"], imageURL=["u"], tech1="<table>", date="May 1, 2016",
        details={"\n Weight: \n": "3 ounces", "ASIN: ": "A", "UPC:": "1234"},
    )  # fmt: skip
    assert made == {
        "item_id": "A", "title": "Loom", "brand": "Weavers", "categories": ["Toys"], "description": "One. Two.",
        "features": ["Wide", "Light & small"],
        "attributes": {"Weight": ["3 ounces"], "UPC": ["1234"], "price": ["$1,299.00"], "date": ["May 1, 2016"]},
    }  # fmt: skip


def test_amazon_2023_words_are_found():
    made = record(
        parent_asin="P", title="Loom", store="Weavers", main_category="Toys & Games", categories=["Crafts", "Looms"],
        description=[], features=["Wide"], price="None", average_rating=4.5, rating_number=7, images=[{"large": "u"}],
        details={"Color": "red", "Batteries Required": False, "Sizes": ["S", "M"]},
    )  # fmt: skip
    assert made == {
        "item_id": "P", "title": "Loom", "brand": "Weavers", "categories": ["Toys & Games", "Crafts", "Looms"],
        "features": ["Wide"],
        "attributes": {"Color": ["red"], "Batteries Required": ["false"], "Sizes": ["S", "M"]},
    }  # fmt: skip


def test_a_shop_s_columns_are_understood_or_named():
    row = {"SKU": 7, "Name": "Loom", "genres": "Toys|Crafts", "colour": "red", "maker": "Weavers"}
    assert record(columns={"brand": "maker", "user": "who"}, **row) == {
        "item_id": "7", "title": "Loom", "brand": "Weavers", "categories": ["Toys", "Crafts"],
        "attributes": {"colour": ["red"]},
    }  # fmt: skip


def test_lists_that_a_table_kept_as_text_are_lists_again():
    made = record(item="i", categories="['Toys', 'Looms']", features='["a", "b"]', details='{"Color": "red"}')
    assert (made["categories"], made["features"]) == (["Toys", "Looms"], ["a", "b"])
    assert made["attributes"] == {"Color": ["red"]}


def test_a_record_without_an_item_is_refused():
    with pytest.raises(Missing, match="no item id"):
        record(title="Loom")


# -- the items table ---------------------------------------------------------------------------------------------------


def items_of(tmp_path, metadata, **options):
    """A dataset of `amazon_lines` (items ITEM000 to ITEM019) with this metadata: (dataset, catalogue, counts)."""
    reviews = write_lines(tmp_path / "reviews.json.gz", amazon_lines())
    meta = write_lines(tmp_path / "meta.jsonl", metadata)
    made = prepare(PrepareConfig(out=tmp_path / "out", reviews=(reviews,), metadata=(meta,), **options))
    dataset = Dataset(tmp_path / "out")
    return dataset, dataset.catalogue().collect(), made.catalogue


def test_attributes_get_types_and_what_is_no_number_is_counted(tmp_path):
    metadata = [
        {"asin": f"ITEM{n:03d}", "price": f"${n + 1}.50", "ean": f"0012{n:03d}", "new": n % 2 == 0,
         "tags": ["a", str(n)], "colour": "red" if n else "12"}
        for n in range(20)
    ]  # fmt: skip
    metadata[3]["price"] = "see basket"
    metadata[4]["price"] = "12,99 EUR"
    metadata[5]["price"] = "$1,299"
    dataset, frame, counts = items_of(tmp_path, metadata)
    types = {"price": pl.Float64, "ean": pl.String, "new": pl.Boolean, "tags": pl.List(pl.String), "colour": pl.String}
    assert dataset.attributes == types
    row = dict(zip(frame["item_id"], frame.select(pl.col("^attribute.*$")).to_dicts(), strict=True))
    assert row["ITEM000"] == {
        "attribute.price": 1.5, "attribute.ean": "0012000", "attribute.new": True, "attribute.tags": ["a", "0"],
        "attribute.colour": "12",
    }  # fmt: skip
    assert [row[f"ITEM{n:03d}"]["attribute.price"] for n in (3, 4, 5)] == [None, 12.99, 1299.0]
    price = next(a for a in counts.attributes if a.name == "price")
    assert (price.type, price.n_items, price.n_unreadable) == ("number", 20, 1)
    assert ("  with price", "20 (number, 1 not a number)") in catalogue_rows(counts)


def test_the_first_real_value_wins_field_by_field_and_batches_do_not_show(tmp_path, monkeypatch):
    metadata = [
        {"asin": "ITEM001", "title": " ", "brand": "One", "colour": "red"},
        {"asin": "ITEM001", "title": "Real", "brand": "Two", "colour": "blue", "description": "words"},
        {"asin": "ITEM019", "title": "Last"},
        {"asin": "NOBODY", "title": "Not bought", "shape": "round"},
    ]
    _, whole, counts = items_of(tmp_path, metadata)
    assert (counts.n_titles, counts.n_brands, counts.n_descriptions) == (2, 1, 1)
    row = whole.row(by_predicate=pl.col("item_id") == "ITEM001", named=True)
    assert (row["title"], row["brand"], row["description"], row["attribute.colour"]) == ("Real", "One", "words", "red")
    assert "attribute.shape" not in whole.columns, "nobody bought an item that has one"
    monkeypatch.setattr(cat.write_items, "__kwdefaults__", {"batch": 3})
    _, batched, _ = items_of(tmp_path, metadata, force=True)
    assert batched.equals(whole)


def test_rare_attributes_are_left_out_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(cat, "MAX_ATTRIBUTES", 2)
    metadata = [{"asin": f"ITEM{n:03d}", "a": 1, "b": "x" if n else None, f"only{n}": "y"} for n in range(20)]
    dataset, _, counts = items_of(tmp_path, metadata)
    assert dataset.attributes == {"a": pl.Float64, "b": pl.String}
    assert counts.n_rare_attributes == 20
    assert ("  rare attributes left out", "20") in catalogue_rows(counts)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl.gz"])
def test_every_format_of_metadata_says_the_same_beside_p5_too(tmp_path, suffix):
    rows = [
        {"product": f"item-{n}", "label": f"Thing {n}", "brand": "B", "category": "Toys > Games", "price": n + 0.5}
        for n in range(1, 5)
    ]
    meta = tmp_path / f"meta.{suffix}"
    if suffix == "csv":
        with meta.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == "parquet":
        pl.DataFrame(rows).write_parquet(meta)
    else:
        meta.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in rows)))
    p5 = write_p5(tmp_path / "p5", {1: [1, 2, 3], 2: [2, 3, 4]})
    columns = {"item": "product", "title": "label"}
    prepare(PrepareConfig(out=tmp_path / "out", p5=p5, metadata=(meta,), columns=columns))
    frame = Dataset(tmp_path / "out").catalogue().collect().sort("item_id")
    assert frame["title"].to_list() == [f"Thing {n}" for n in range(1, 5)]
    assert frame["categories"].to_list() == [["Toys", "Games"]] * 4
    assert frame["attribute.price"].to_list() == [1.5, 2.5, 3.5, 4.5]


def test_a_metadata_table_without_an_item_is_refused(tmp_path):
    reviews = write_lines(tmp_path / "r.json", amazon_lines())
    (tmp_path / "m.csv").write_text("label,colour\na,b\n")
    with pytest.raises(InputError, match=r"no column for the item.*--metadata-columns item="):
        prepare(PrepareConfig(out=tmp_path / "out", reviews=(reviews,), metadata=(tmp_path / "m.csv",)))


def test_the_catalogue_s_text_has_a_line_for_each_word_of_the_shop(tmp_path):
    metadata = [
        {"asin": "ITEM000", "title": "Loom", "brand": "W", "category": ["Toys", "Crafts"], "feature": ["Wide", "Red"],
         "description": "Weaves."},
        {"asin": "ITEM001", "description": "Only this."},
    ]  # fmt: skip
    _, frame, _ = items_of(tmp_path, metadata)
    text = dict(zip(frame["item_id"], cat.catalogue_text(frame), strict=True))
    assert text["ITEM000"] == "Loom\nW\nToys\nCrafts\nWide\nRed\nWeaves."
    assert (text["ITEM001"], text["ITEM002"]) == ("Only this.", "")


def test_datasets_from_before_the_words_have_them_all_null(tmp_path):
    dataset = write_small_dataset(tmp_path / "d")
    frame = dataset.catalogue().collect()
    assert frame["brand"].null_count() == frame["categories"].null_count() == frame.height
    assert cat.catalogue_text(frame) == dataset.items["title"].to_list()


def test_without_metadata_the_columns_are_there_and_empty(tmp_path):
    frame = Dataset(prepared(tmp_path)).catalogue().collect()
    assert frame["features"].null_count() == frame.height
    assert cat.catalogue_text(frame) == [""] * frame.height


def test_the_sample_shop_s_words_agree_with_what_is_bought(tmp_path):
    """Items of one brand and shelf are bought by the same people far more often than items at large."""
    write_sample(tmp_path, seed=0)
    prepare(PrepareConfig(out=tmp_path / "d", reviews=(tmp_path / REVIEWS_FILE,), metadata=(tmp_path / METADATA_FILE,)))
    dataset = Dataset(tmp_path / "d")
    frame = dataset.catalogue().collect()
    assert (
        frame.select(pl.col("title", "brand", "categories", "description", "features").null_count()).row(0) == (0,) * 5
    )
    assert frame["attribute.price"].min() > 1
    place = frame.select(pl.concat_str("brand", pl.col("categories").list.last())).to_series().to_list()
    indptr, items = dataset.sequences("test")
    next_alike = [
        place[items[n]] == place[items[n + 1]] for u in range(600) for n in range(indptr[u], indptr[u + 1] - 1)
    ]
    shares = pl.Series(place).value_counts()["count"] / len(place)
    assert sum(next_alike) / len(next_alike) > 5 * (shares**2).sum()
