import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from rdrec_core.errors import InputError
from training.data import records as rc
from training.data import reviews as rv
from training.data import values
from training.data.times import UNKNOWN, unix_seconds

FLAT = "write the id itself as a field, one record a line"
AMAZON = {
    "reviewerID": "U1",
    "asin": "I1",
    "reviewText": "Fine &amp; <br />good.\n Yes",
    "overall": 4.0,
    "unixReviewTime": 1500000000,
}


def read(*lines, first=1, chosen=None, **wanted):
    data = b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n"
    objects = [line for line in lines if isinstance(line, dict)] or [AMAZON]
    fields = dict.fromkeys(name for line in objects for name in line)
    names = rv.match_names(fields, chosen or {}, rv.Wanted(**wanted), "f")
    return rc.read_json_lines(data, first, names)


def rows(block):
    """(user, item, seconds, rating, text) of each record."""
    return [tuple(row.values())[:5] for row in block.table(rv.RECORDS).to_pylist()]


def test_an_amazon_line_is_cleaned_and_kept():
    assert rows(read(AMAZON)) == [("U1", "I1", 1500000000, 4.0, "Fine & good. Yes")]


def test_lines_of_2014_may_be_python_literals_and_numbers_nan():
    line = b"{'reviewerID': 'U1', 'asin': 'I1', 'reviewText': \"it's ok\", 'overall': 3.0, 'unixReviewTime': 9999999}"
    assert rows(read(line)) == [("U1", "I1", 9999999, 3.0, "it's ok")]
    line = b'{"reviewerID": "U1", "asin": "I1", "reviewText": NaN, "overall": NaN, "unixReviewTime": 1e9}'
    assert rows(read(line)) == [("U1", "I1", 10**9, None, "")]


def test_2023_times_are_milliseconds_items_are_parents_and_titles_headlines():
    line = {"user_id": "U", "parent_asin": "P", "asin": "C", "text": "t", "rating": 5, "timestamp": 1588687728923}
    block = read(line | {"title": "summary"}, {**line, "parent_asin": None})
    assert rows(block) == [("U", "P", 1588687728, 5.0, "t"), ("U", "C", 1588687728, 5.0, "t")]
    assert block.columns[5] == [None, None]


def test_a_missing_text_or_rating_is_no_fault():
    line = {key: AMAZON[key] for key in ("reviewerID", "asin", "unixReviewTime")}
    assert rows(read(line)) == [("U1", "I1", 1500000000, None, "")]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{broken", "neither JSON nor a Python literal"),
        (b"[1, 2]", "not an object"),
        (b'{"reviewerID": "\xff"}', "not UTF-8 (--encoding names another, such as latin-1 or cp1252)"),
        (AMAZON | {"reviewerID": ["x"]}, "reviewerID is nested, as ['x']: " + FLAT),
        (AMAZON | {"reviewerID": {"id": "x"}}, "reviewerID is nested, as {'id': 'x'}: " + FLAT),
        (
            AMAZON | {"reviewerID": "x" * 129},
            f"reviewerID has 129 characters, the service takes up to 128: {'x' * 20}...",
        ),
        (AMAZON | {"asin": "half \ud83d"}, "asin holds half a character"),
        (AMAZON | {"asin": 1.5}, "asin is neither text nor a whole number: 1.5"),
        (
            AMAZON | {"unixReviewTime": "yesterday"},
            "unixReviewTime is neither a number nor a date: yesterday (--time-format names its form)",
        ),
        (AMAZON | {"unixReviewTime": None}, "no unixReviewTime"),
        (AMAZON | {"unixReviewTime": -5}, "unixReviewTime is out of range: -5"),
    ],
)
def test_a_bad_line_is_counted_with_its_number_and_reason(line, reason):
    block = read(AMAZON, line, AMAZON, first=41)
    assert block.n_bad == 1
    assert block.bad == [(42, reason)]
    assert len(rows(block)) == 2


@pytest.mark.parametrize("nothing", ["", " ", "nan", "NaN", "NULL", "None", "\\N", "n/a", None])
def test_words_for_nothing_are_no_user_and_no_item(nothing):
    block = read(AMAZON, AMAZON | {"reviewerID": nothing}, AMAZON | {"asin": nothing})
    assert (len(rows(block)), block.n_bad) == (1, 0)
    assert block.dropped.seen == {"no reviewerID": (1, "line 2"), "no asin": (1, "line 3")}


def test_blank_lines_are_counted_and_no_bad_ones():
    block = read(b"", b"  ", b"nonsense", AMAZON)
    assert block.bad == [(3, "neither JSON nor a Python literal")]
    assert block.n_blank == 2


def test_only_the_first_ten_bad_lines_are_kept_but_all_are_counted():
    block = read(*[b"x"] * 25)
    assert block.n_bad == 25
    assert [line for line, _ in block.bad] == list(range(1, 11))


def test_a_lone_surrogate_in_a_text_becomes_a_question_mark():
    assert rows(read(AMAZON | {"reviewText": "cut \ud83d emoji"}))[0][4] == "cut ? emoji"


def test_ids_that_were_whole_numbers_are_again_and_spreadsheet_damage_is_noted():
    block = read(
        AMAZON | {"reviewerID": 663713001.0, "asin": "17.0"}, AMAZON | {"reviewerID": "1.23E+09", "asin": "007"}
    )
    assert [row[:2] for row in rows(block)] == [("663713001", "17"), ("1.23E+09", "007")]
    assert block.notes.seen == {values.FLOAT_IDS: (2, "663713001.0"), values.SPREADSHEET_IDS: (1, "1.23E+09")}


def test_a_rating_that_is_none_costs_no_purchase():
    block = read(*[AMAZON | {"overall": rating} for rating in ("great", "4,5", "", "nan", 3)])
    assert [row[3] for row in rows(block)] == [None, 4.5, None, None, 3.0]
    assert block.notes.seen == {values.RATING_UNREAD: (1, "great")}


def test_low_ratings_and_kinds_of_events_are_dropped_on_request_and_counted():
    block = read(*[AMAZON | {"overall": n} for n in (1, 5, None)], min_rating=4)
    assert [row[3] for row in rows(block)] == [5.0, None]
    assert block.dropped.seen == {"rating below --min-rating 4": (1, "line 1")}
    lines = [AMAZON | {"event": kind} for kind in ("view", "Transaction", "", "cart")]
    block = read(*lines, events={"transaction": 5.0, "cart": 2.0})
    assert block.columns[6] == [5.0, 2.0]
    assert {kind: n for kind, (n, _) in block.dropped.seen.items()} == {
        "kind of event not chosen by --events: view": 1, "kind of event not chosen by --events: none": 1,
    }  # fmt: skip
    block = read(*lines)
    assert len(rows(block)) == 4
    assert any("events of kind view, which count like every other" in line for line in block.notes.lines())


def test_rows_of_undecodable_bytes_are_bad():
    names = rv.match_names(["user", "item", "ts"], {}, rv.Wanted(), "f")
    block = rc.read_rows(
        [(2, ["zo\udce9", "i", "1"]), (3, "cut short"), (4, ["zoë", "i", "1"])], names.columns[:3], names
    )
    assert [reason[:9] for _, reason in block.bad] == ["not UTF-8", "cut short"]
    assert block.columns[0] == ["zoë"]


# -- times -------------------------------------------------------------------------------------------------------------

NOON = int(datetime(2019, 10, 1, 12, tzinfo=UTC).timestamp())
DAY = NOON - 12 * 3600


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (NOON, NOON), (str(NOON), NOON), (float(NOON), NOON), (f"{NOON}.0", NOON), (Decimal(NOON), NOON),
        (NOON * 10**3 + 7, NOON), (str(NOON * 10**6), NOON), (NOON * 10**9, NOON), (1_000_000_000_000, 10**9),
        (12, 12), ("12.9", 12), (0, UNKNOWN), ("0", UNKNOWN), (999, 999),
        (20191001, DAY), ("20191001", DAY), (20191001.0, DAY), (20191001120000, NOON),
        (datetime(2019, 10, 1, 12), NOON), (date(2019, 10, 1), DAY), ("2019-10-01", DAY),
        ("2019-10-01T12:00:00Z", NOON),
        ("2019-10-01 14:00:00+02:00", NOON), ("2019-10-01 12:00:00 UTC", NOON), ("2019-10-01 12:00:00.5 GMT", NOON),
        ("2019/10/01", DAY), ("2019/10/01 12:00", NOON), ("10 1, 2019", DAY), ("October 1, 2019", DAY),
        ("1 Oct 2019", DAY), ("Tue, 1 Oct 2019 14:00:00 +0200", NOON), ("Tue Oct 01 12:00:00 +0000 2019", NOON),
        ({"$date": "2019-10-01T12:00:00Z"}, NOON),
    ],
)  # fmt: skip
def test_a_time_is_read_by_its_size_or_form(written, seconds):
    assert unix_seconds(written, "t") == seconds


@pytest.mark.parametrize("written", ["01/10/2019", "10/31/2019", "31.10.2019", "1-10-19", "31/10/2019 12:00"])
def test_what_reads_two_ways_is_refused_by_name_and_read_when_its_form_is_named(written):
    with pytest.raises(ValueError, match=r"day-first or month-first.*--time-format"):
        unix_seconds(written, "t")
    assert unix_seconds("01/10/2019", "t", "%d/%m/%Y") == DAY


@pytest.mark.parametrize("written", [-1, "-86400000", -62135596800000, 10**21, float("inf"), "soon", "1969-12-31"])
def test_what_is_no_time_is_refused(written):
    with pytest.raises(ValueError, match=r"^t is"):
        unix_seconds(written, "t")


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (["UserId", "asin", "Stars", "ts"], ("UserId", "asin", "ts", "Stars")),
        (["User-ID", "ISBN", "Book-Rating", "date"], ("User-ID", "ISBN", "date", "Book-Rating")),
        (
            ["user_id:token", "item_id:token", "timestamp:float"],
            ("user_id:token", "item_id:token", "timestamp:float", None),
        ),
        (["t_dat", "customer_id", "article_id", "price"], ("customer_id", "article_id", "t_dat", None)),
        (["timestamp", "visitorid", "event", "itemid"], ("visitorid", "itemid", "timestamp", None)),
        (["event_time", "product_id", "user_id"], ("user_id", "product_id", "event_time", None)),
        (["created_at", "sku", "customer"], ("customer", "sku", "created_at", None)),
    ],
)
def test_columns_of_known_files_are_recognised(header, found):
    names = rv.match_names(header, {}, rv.Wanted(), "f")
    assert (names.user, names.item[0], names.timestamp, names.rating) == found


def test_chosen_columns_win():
    header = ["UserId", "asin", "time", "buyer", "title"]
    names = rv.match_names(header, {"user": "buyer", "title": "title"}, rv.Wanted(), "f")
    assert (names.user, names.title) == ("buyer", "title")
    assert rv.match_names(header, {}, rv.Wanted(), "f").title is None


@pytest.mark.parametrize(
    ("header", "chosen", "wanted", "message"),
    [
        (["user", "item", "ts"], {"user": "nobody"}, {}, "no such column"),
        (["user", "item", "ts"], {"rating": "stars"}, {}, "no such column"),
        (["user", "shelf", "ts"], {}, {}, "no column for the item"),
        (["user", "item"], {}, {}, "no column for the time.*--order file"),
        (["user", "item", "ts"], {}, {"events": {"a": 1.0}}, "no column for the kind of event"),
    ],
)
def test_a_missing_column_is_named(header, chosen, wanted, message):
    with pytest.raises(InputError, match=message):
        rv.match_names(header, chosen, rv.Wanted(**wanted), "f.csv")


def test_a_file_in_order_needs_no_time_and_titles_may_be_in_the_metadata():
    names = rv.match_names(["user", "item"], {"title": "name"}, rv.Wanted(order="file", titles_elsewhere=True), "f")
    assert (names.timestamp, names.title) == (None, None)
