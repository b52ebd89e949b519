import json
from datetime import UTC, datetime

import pytest

from rdrec_core.errors import DatasetError, InputError
from training.data import reviews as rv

AMAZON = {
    "reviewerID": "U1",
    "asin": "I1",
    "reviewText": "Fine &amp; <br />good.\n Yes",
    "overall": 4.0,
    "unixReviewTime": 1500000000,
}


def read(*lines, format_="amazon2018", first=1):
    data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n"
    return rv.read_json_lines(data, first, rv.REVIEW_FIELDS[format_])


def rows(block, schema=rv.RECORDS):
    return [tuple(row.values()) for row in block.table(schema).to_pylist()]


def test_an_amazon_line_is_cleaned_and_kept():
    assert rows(read(AMAZON)) == [("U1", "I1", 1500000000, 4.0, "Fine & good. Yes", None)]


def test_lines_of_2014_may_be_python_literals():
    line = b"{'reviewerID': 'U1', 'asin': 'I1', 'reviewText': \"it's ok\", 'overall': 3.0, 'unixReviewTime': 7}"
    assert rows(read(line, format_="amazon2014")) == [("U1", "I1", 7, 3.0, "it's ok", None)]


def test_2023_times_are_milliseconds_and_items_are_parents():
    line = {"user_id": "U", "parent_asin": "P", "asin": "C", "text": "t", "rating": 5, "timestamp": 1588687728923}
    assert rows(read(line | {"title": "summary"}, format_="amazon2023")) == [("U", "P", 1588687728, 5.0, "t", None)]


def test_a_missing_text_or_rating_is_no_fault():
    line = {key: AMAZON[key] for key in ("reviewerID", "asin", "unixReviewTime")}
    assert rows(read(line)) == [("U1", "I1", 1500000000, None, "", None)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{broken", "neither JSON nor a Python literal"),
        (b"[1, 2]", "not an object"),
        (b'{"reviewerID": "\xff"}', "not UTF-8"),
        (AMAZON | {"reviewerID": ""}, "no reviewerID"),
        (AMAZON | {"reviewerID": ["x"]}, "reviewerID is neither text nor a whole number"),
        ({key: value for key, value in AMAZON.items() if key != "asin"}, "no asin"),
        (AMAZON | {"unixReviewTime": "yesterday"}, "unixReviewTime is neither a number nor an ISO date"),
        (AMAZON | {"unixReviewTime": None}, "no unixReviewTime"),
        (AMAZON | {"unixReviewTime": -5}, "unixReviewTime is out of range"),
        (AMAZON | {"overall": "great"}, "overall is not a number"),
    ],
)
def test_a_bad_line_is_counted_with_its_number_and_reason(line, reason):
    block = read(AMAZON, line, AMAZON, first=41)
    assert block.n_bad == 1
    assert block.bad == [(42, reason)]
    assert len(rows(block)) == 2


def test_blank_lines_count_as_lines_but_not_as_bad_ones():
    block = read(b"", b"  ", b"nonsense", AMAZON)
    assert block.bad == [(3, "neither JSON nor a Python literal")]


def test_only_the_first_ten_bad_lines_are_kept_but_all_are_counted():
    block = read(*[b"x"] * 25)
    assert block.n_bad == 25
    assert [line for line, _ in block.bad] == list(range(1, 11))


def test_a_lone_surrogate_becomes_a_question_mark():
    line = json.dumps(AMAZON | {"reviewText": "cut \ud83d emoji"}).encode()
    assert rows(read(line))[0][4] == "cut ? emoji"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([b"{'reviewerID': 'u', 'asin': 'i'}"], "amazon2018"),
        ([b"junk", b'{"user_id": "u", "parent_asin": "i"}'], "amazon2023"),
    ],
)
def test_the_format_is_found_out(lines, expected):
    assert rv.detect_json_format(lines, "f") == expected


def test_an_unknown_format_names_the_file_and_what_was_seen():
    with pytest.raises(DatasetError, match=r"shop\.json.*fields seen: buyer, sku"):
        rv.detect_json_format([b'{"sku": 1, "buyer": 2}'], "shop.json")


def test_table_rows_take_numbers_dates_and_datetimes():
    def row(timestamp):
        return {"user": 7, "item": "i", "timestamp": timestamp, "title": "T"}

    stamps = [
        "12",
        "12.9",
        12,
        "1970-01-01T00:00:12Z",
        "1970-01-01 00:00:12",
        datetime(1970, 1, 1, 0, 0, 12, tzinfo=UTC),
    ]
    block = rv.read_rows([(n, row(stamp)) for n, stamp in enumerate(stamps, start=2)], rv.TABLE_FIELDS)
    assert block.bad == []
    assert {r[:3] + r[5:] for r in rows(block)} == {("7", "i", 12, "T")}


def test_table_rows_without_a_time_column_have_no_time():
    block = rv.read_rows([(2, {"user": "u", "item": "i"}), (3, None)], rv.TABLE_FIELDS)
    assert rows(block) == [("u", "i", None, None, "", None)]
    assert block.bad == [(3, "wrong number of fields")]


def test_columns_are_guessed_unless_chosen():
    header = ["UserId", "asin", "Stars", "buyer"]
    assert rv.match_columns(header, {}, "f") == {"user": "UserId", "item": "asin", "rating": "Stars"}
    assert rv.match_columns(header, {"user": "buyer"}, "f")["user"] == "buyer"


@pytest.mark.parametrize(
    ("chosen", "message"),
    [({"user": "nobody"}, "no such column"), ({}, "no column for the item")],
)
def test_a_missing_column_is_named(chosen, message):
    with pytest.raises(InputError, match=message) as error:
        rv.match_columns(["user", "sku"], chosen, "f.csv")
    assert error.value.field == "columns"
