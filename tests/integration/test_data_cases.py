"""Files as people really have them, one row a kind: what `rdrec prepare` makes of it, or by which sentence it refuses.

Every input is written here. All sources tell of the same purchases, so that one answer is right for all.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.purchases import write_p5
from training.cli import main
from training.data.dataset import Dataset
from training.data.prepare import PrepareConfig, prepare
from training.evaluation.audit import audit
from training.evaluation.protocol import questions
from training.learning.examples import TrainingHistories

START = int(datetime(2015, 3, 1, tzinfo=UTC).timestamp())
DAY = 86_400
PURCHASES = [
    {
        "user": f"buyer{u}",
        "item": f"B{100 + (u + 3 * k) % 8}",
        "rating": float(1 + (u + k) % 5),
        "when": START + DAY * (7 * k + u),
        "text": f"Bought by {u} at step {k}, a fine lamp with a nice switch.",
    }
    for k in range(5)
    for u in range(6)
]
"""30 purchases of 6 users and 8 items, in order of time; every user has 5, each of another item."""
ROWS = len(PURCHASES)

Write = Callable[[Path], None]


def table(
    names: Mapping[str, str], *, separator: str = ",", header: bool = True, encoding: str = "utf-8",
    change: Callable[[dict[str, Any]], dict[str, Any]] = dict, quote: bool = True,
) -> Callable[[Path], None]:  # fmt: skip
    """A delimited file: names maps user, item, ... (and constants as `=value`) to columns, in order."""

    def write(path: Path) -> None:
        file = io.StringIO(newline="")
        rows = [[change(row).get(key, key.removeprefix("=")) for key in names] for row in PURCHASES]
        if quote and len(separator) == 1:
            writer = csv.writer(file, delimiter=separator, lineterminator="\n")
            writer.writerows([list(names.values()), *rows] if header else rows)
        else:
            for row in [list(names.values()), *rows] if header else rows:
                file.write(separator.join(map(str, row)) + "\n")
        path.write_bytes(file.getvalue().encode(encoding))

    return write


def lines(make: Callable[[dict[str, Any]], Any], *, pack: Callable[[bytes], bytes] = bytes, join: str = "\n") -> Write:
    """A file of what `make` says of each purchase: an object, or a line as it stands."""

    def write(path: Path) -> None:
        made = [make(dict(row)) for row in PURCHASES]
        text = join.join(line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in made)
        path.write_bytes(pack(text.encode()))

    return write


def parquet(columns: Mapping[str, Callable[[dict[str, Any]], Any]], types: Mapping[str, pa.DataType]) -> Write:
    def write(path: Path) -> None:
        arrays = {
            name: pa.array([make(row) for row in PURCHASES], type=types.get(name)) for name, make in columns.items()
        }
        pq.write_table(pa.table(arrays), path)

    return write


def amazon_2023(row: dict[str, Any]) -> dict[str, Any]:
    return {"user_id": row["user"], "parent_asin": row["item"], "rating": row["rating"], "text": row["text"],
            "title": "Five stars", "timestamp": row["when"] * 1000}  # fmt: skip


PLAIN = {"user": "user_id", "item": "item_id", "rating": "rating", "when": "timestamp"}
CODED = {"user": "who", "item": "what", "when": "at"}


def spelled(**changes: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {**row, **{key: make(row) for key, make in changes.items()}}


def day(row: dict[str, Any]) -> date:
    return datetime.fromtimestamp(row["when"], UTC).date()


def articles(path: Path) -> None:
    rows = [f"00{100 + n},Lamp {n},shelf {n % 2}" for n in range(8)]
    path.write_text("\n".join(["article_id,prod_name,garment_group", *rows]) + "\n")


def damaged_tsv(path: Path) -> None:
    rows = [
        f"{row['user']}\t{row['item']}\t{chr(34) if n % 7 == 3 else ''}{row['text']}\t{row['when']}"
        for n, row in enumerate(PURCHASES)
    ]
    path.write_text("\n".join(["customer_id\tproduct_id\treview_body\treview_date", *rows]) + "\n")


def books(path: Path) -> None:
    rows = [f'"B{100 + n}";"The \\"best\\" of b\u00fccher {n} &amp;amp; more";"1999"' for n in range(8)]
    path.write_bytes(("\n".join(['"ISBN";"Book-Title";"Year"', *rows]) + "\n").encode("latin-1"))


def page_source(path: Path) -> None:
    source = "<span class='a'>Lamp</span> var aPageStart = (new Date()).getTime(); if (window.ue) { ues('t0'); }"
    titles = {"B100": source, "B101": "Lamp &amp;amp; shade, 48&amp;#34;", "B102": "", "B103": ["A", "lamp"]}
    made = [{"asin": item, "title": title} for item, title in titles.items()] + [
        {"asin": "B102", "title": "Found later"}
    ]
    path.write_text("\n".join(map(json.dumps, made)))


@dataclass(frozen=True)
class Case:
    """files: name -> writer; options of the command, where `{name}` is the path of a file. Either refused, or made."""

    kind: str
    files: Mapping[str, Write]
    options: str
    refused: str = ""
    """A pattern of the sentence."""
    n_interactions: int = ROWS
    n_users: int = 6
    n_items: int = 8
    says: tuple[str, ...] = ()
    """Words on the screen."""
    titles: Mapping[str, str | None] = field(default_factory=dict)
    times: bool = True
    """Whether the times are those of PURCHASES (else they are not compared)."""


R = "--reviews {r}"
CHINESE = "\u8fd9\u4e2a\u706f\u5f88\u597d\u770b\u3002\u6211\u7684\u5b69\u5b50{}\u559c\u6b22\u5b83\uff01"
BY_PLACE = f"{R} --columns user=1,item=2,rating=3,timestamp=4"
GUEST = spelled(user=lambda row: "nan" if row["user"] == "buyer0" else row["user"])
KINDS = spelled(kind=lambda row: ("view", "addtocart", "transaction")[int(row["rating"]) % 3])
CASES = [
    # times
    Case("ms in CSV", {"r": table(PLAIN, change=spelled(when=lambda r: r["when"] * 1000))}, R),
    Case(
        "ms of before 2004",
        {"r": table(PLAIN, change=spelled(when=lambda r: (r["when"] - 5 * 10**8) * 1000))},
        R,
        says=("1999-",),
        times=False,
    ),
    Case(
        "us and ns",
        {"r": table(PLAIN, change=spelled(when=lambda r: r["when"] * 10 ** (6 + 3 * (r["rating"] > 2))))},
        R,
    ),
    Case(
        "times of 0 and below",
        {
            "r": lines(
                lambda r: amazon_2023(r) | ({"timestamp": (0, -5)[r["user"] == "buyer1"]} if r["rating"] == 1 else {})
            )
        },
        R,
        n_interactions=29,
        says=("out of range", "times of 0, taken for unknown"),
        times=False,
    ),
    Case("dates with words", {"r": table(PLAIN, change=spelled(when=lambda r: f"{day(r):%B %d, %Y}"))}, R),
    Case("dates with UTC", {"r": table(PLAIN, change=spelled(when=lambda r: f"{day(r)} 00:00:00 UTC"))}, R),
    Case("compact dates", {"r": table(PLAIN, change=spelled(when=lambda r: f"{day(r):%Y%m%d}"))}, R),
    Case(
        "day-first",
        {"r": table(PLAIN, change=spelled(when=lambda r: f"{day(r):%d/%m/%Y}"))},
        f"{R} --max-bad-lines 5",
        refused="day-first or month-first.*--time-format",
    ),
    Case(
        "day-first, named",
        {"r": table(PLAIN, change=spelled(when=lambda r: f"{day(r):%d/%m/%Y}"))},
        f"{R} --time-format %d/%m/%Y",
    ),
    Case("other names", {"r": table({"user": "customer", "item": "sku", "when": "created_at"})}, R),
    Case("no time", {"r": table({"user": "user", "item": "item"})}, R, refused="no column for the time.*--order file"),
    Case("no time, in order", {"r": table({"user": "user", "item": "item"})}, f"{R} --order file", times=False),
    Case(
        "a time that is none",
        {"r": table({"user": "user_id", "item": "item_id", "=3": "timestamp"})},
        R,
        says=("is that a time",),
        times=False,
    ),
    Case(
        "date32, int64 ids",
        {
            "r": parquet(
                {
                    "customer_id": lambda r: int(r["user"][5:]) + 10**6,
                    "article_id": lambda r: int(r["item"][1:]),
                    "t_dat": day,
                },
                {"t_dat": pa.date32()},
            ),
            "m": articles,
        },
        f"{R} --metadata {{m}} --columns title=prod_name",
        says=("leading zeros", "0 of 8 items are in the metadata", "00100"),
    ),
    *(
        Case(
            f"Parquet {name}",
            {
                "r": parquet(
                    {
                        "user": lambda r: r["user"],
                        "item": lambda r: r["item"],
                        "time": lambda r: datetime.fromtimestamp(r["when"], UTC),
                    },
                    {"time": kind},
                )
            },
            R,
        )
        for name, kind in {
            "ns": pa.timestamp("ns"),
            "us": pa.timestamp("us"),
            "ms with zone": pa.timestamp("ms", "Asia/Tokyo"),
            "s": pa.timestamp("s"),
            "date64": pa.date64(),
        }.items()
    ),
    Case(
        "Parquet integer ms and dictionary",
        {
            "r": parquet(
                {"user": lambda r: r["user"], "item": lambda r: r["item"], "time": lambda r: r["when"] * 1000},
                {"user": pa.dictionary(pa.int32(), pa.string())},
            )
        },
        R,
    ),
    # text files
    Case(
        "no header",
        {"r": table(PLAIN, header=False)},
        R,
        refused="no header.*--columns user=1,item=2,rating=3,timestamp=4",
    ),
    Case("no header, by place", {"r": table(PLAIN, header=False)}, BY_PLACE),
    Case(
        "no header, item first",
        {"r": table({"item": "", "user": "", "rating": "", "when": ""}, header=False)},
        f"{R} --columns item=1,user=2,timestamp=4",
    ),
    Case(
        "places beside a name",
        {"r": table(PLAIN)},
        f"{R} --columns user=1,item=item_id",
        refused="either names or places",
    ),
    Case("lone quotation marks", {"r": damaged_tsv}, R, says=("a quotation mark is a plain character",)),
    Case("lone quotation marks, told", {"r": damaged_tsv}, f"{R} --quoting none"),
    Case(
        "latin-1 ids",
        {
            "r": table(
                PLAIN,
                encoding="latin-1",
                change=spelled(user=lambda r: r["user"] + "\u00e9\u00eb"[r["user"] > "buyer2"]),
            )
        },
        f"{R} --max-bad-lines 9",
        refused="not UTF-8.*--encoding",
    ),
    Case(
        "latin-1 ids, told",
        {
            "r": table(
                PLAIN,
                encoding="latin-1",
                change=spelled(user=lambda r: "zo" + "\u00e9\u00eb\u00e8\u00ea\u00e4\u00e5"[int(r["user"][5:])]),
            )
        },
        f"{R} --encoding latin-1",
    ),
    Case("no encoding of that name", {"r": table(PLAIN)}, f"{R} --encoding klingon", refused="no such encoding"),
    Case("UTF-16", {"r": table(PLAIN, encoding="utf-16")}, R),
    Case("UTF-8 with a mark", {"r": table(PLAIN, encoding="utf-8-sig")}, R),
    Case(
        "escaped quotes, two encodings",
        {"r": table({"user": "User-ID", "item": "ISBN", "rating": "Book-Rating"}, separator=";"), "m": books},
        f"{R} --order file --metadata {{m}} --encoding latin-1",
        times=False,
        titles={"B103": 'The "best" of b\u00fccher 3 & more'},
    ),
    Case(
        "::",
        {"r": table(PLAIN, header=False, separator="::")},
        R,
        refused="no header.*user=1,item=2,rating=3,timestamp=4",
    ),
    Case(":: by place", {"r": table(PLAIN, header=False, separator="::")}, BY_PLACE),
    Case("tabs by place", {"r": table(PLAIN, header=False, separator="\t")}, BY_PLACE),
    Case("blanks by place", {"r": table(PLAIN, header=False, separator="   ")}, BY_PLACE),
    Case("another separator", {"r": table(PLAIN, separator="~", quote=False)}, f"{R} --separator ~"),
    Case(
        "RecBole",
        {
            "r": table({"user": "user_id:token", "item": "item_id:token", "when": "timestamp:float"}, separator="\t"),
            "m": lambda p: p.write_text(
                "item_id:token\ttitle:token_seq\n" + "".join(f"B{100 + n}\tLamp {n}\n" for n in range(8))
            ),
        },
        f"{R} --metadata {{m}}",
        titles={"B107": "Lamp 7"},
    ),
    Case(
        "no header in the metadata",
        {"r": table(PLAIN), "m": lambda p: p.write_text("".join(f"B{100 + n}::Lamp {n}::Old|New\n" for n in range(8)))},
        f"{R} --metadata {{m}} --metadata-columns item=1,title=2,categories=3",
        titles={"B101": "Lamp 1"},
        says=("with categories",),
    ),
    Case(
        "a spreadsheet",
        {"r": lambda p: p.write_bytes(b"PK\x03\x04" + bytes(50))},
        R,
        refused="zip archive or a spreadsheet",
    ),
    # JSON
    Case("an array", {"r": lambda p: p.write_text(json.dumps([amazon_2023(r) for r in PURCHASES]))}, R),
    Case("pretty JSON", {"r": lambda p: p.write_text(json.dumps([amazon_2023(r) for r in PURCHASES], indent=2))}, R),
    Case("pretty objects", {"r": lines(lambda r: json.dumps(amazon_2023(r), indent=1))}, R),
    Case(
        "JSON with a mark and NaN",
        {"r": lines(lambda r: amazon_2023(r) | {"rating": float("nan")}, pack=lambda b: b"\xef\xbb\xbf" + b)},
        R,
    ),
    Case(
        "pandas' columns",
        {
            "r": lambda p: p.write_text(
                json.dumps({key: {str(n): r[key] for n, r in enumerate(PURCHASES)} for key in ("user", "item", "when")})
            )
        },
        R,
        refused="column form.*lines=True",
    ),
    Case(
        "Python literals of other names",
        {"r": lines(lambda r: repr({"who": r["user"], "what": r["item"], "at": str(day(r))}))},
        f"{R} --columns user=who,item=what,timestamp=at",
    ),
    Case(
        "names unknown",
        {"r": lines(lambda r: {"who": r["user"], "what": r["item"], "at": 7})},
        R,
        refused="no column for the user; name it by --columns user=.*who, what, at",
    ),
    Case(
        "nested",
        {
            "r": lambda p: p.write_text(
                "".join(f"{{'user_id': 'u{n}', 'reviews': [{{'item_id': 'i'}}]}}\n" for n in range(5))
            )
        },
        R,
        refused="nested records in 'reviews'",
    ),
    Case(
        "CSV called JSON",
        {"r.json.gz": lambda p: (table(PLAIN)(p), p.write_bytes(gzip.compress(p.read_bytes())))},
        "--reviews {r.json.gz}",
    ),
    Case("bz2", {"r": lines(amazon_2023, pack=bz2.compress)}, R),
    Case("xz", {"r": lines(amazon_2023, pack=lzma.compress)}, R),
    # ids, ratings, titles
    Case(
        "words for nothing",
        {"r": table(PLAIN, change=GUEST)},
        R,
        n_users=5,
        n_interactions=25,
        times=False,
        says=("dropped: no user_id (line 2)",),
    ),
    Case(
        "float ids",
        {"r": table(PLAIN, change=spelled(item=lambda r: f"{r['item'][1:]}.0"))},
        R,
        says=("read as the whole numbers",),
    ),
    Case(
        "spreadsheet ids",
        {"r": table(PLAIN, change=spelled(item=lambda r: f"1.{r['item'][1:]}E+09"))},
        R,
        says=("spreadsheet has shortened",),
    ),
    Case(
        "long ids",
        {"r": lines(lambda r: amazon_2023(r) | ({"parent_asin": "x" * 129} if r["item"] == "B100" else {}))},
        R,
        n_items=7,
        n_interactions=26,
        says=("129 characters, the service takes up to 128",),
        times=False,
    ),
    Case(
        "ids of all sorts",
        {"r": lines(lambda r: amazon_2023(r) | {"user_id": f"a/b?#%\t\u00e9\U0001f600{r['user']}"})},
        R,
    ),
    Case(
        "ratings that are none",
        {"r": table(PLAIN, change=spelled(rating=lambda r: "great" if r["rating"] == 2 else r["rating"]))},
        R,
        says=("ratings that are no number",),
    ),
    Case(
        "low ratings",
        {"r": table(PLAIN)},
        f"{R} --min-rating 3",
        n_interactions=18,
        says=("rating below --min-rating 3",),
        times=False,
    ),
    Case("headlines", {"r": lines(amazon_2023)}, R, titles={"B100": None}, says=("taken for reviews' headlines",)),
    Case("titles of the reviews' table", {"r": table({**PLAIN, "text": "product_title"})}, R, times=True),
    Case(
        "page source",
        {"r": table(PLAIN), "m": page_source},
        f"{R} --metadata {{m}}",
        titles={"B100": None, "B101": 'Lamp & shade, 48"', "B102": "Found later", "B103": "A lamp"},
    ),
    # events, repeats, filters
    Case(
        "events alike",
        {"r": table({**CODED, "kind": "event"}, change=KINDS)},
        f"{R} --columns user=who,item=what,timestamp=at",
        says=("events of kind view, which count like every other kind",),
    ),
    Case(
        "events chosen",
        {"r": table({**PLAIN, "kind": "kind"}, change=KINDS)},
        f"{R} --event-column kind --events transaction,AddToCart",
        n_interactions=24,
        says=("not chosen by --events: view",),
        times=False,
    ),
    Case(
        "events without a column",
        {"r": table(PLAIN)},
        f"{R} --events view=1",
        refused="no column for the kind of event",
    ),
    Case(
        "repeats",
        {"r": table(PLAIN, change=spelled(item=lambda r: "B100" if r["rating"] > 2 else r["item"]))},
        R,
        n_interactions=16,
        says=("repeats of a user and item, dropped, the first stays",),
        times=False,
    ),
    Case(
        "repeats kept",
        {"r": table(PLAIN, change=spelled(item=lambda r: "B100" if r["rating"] > 2 else r["item"]))},
        f"{R} --repeats keep",
        says=("kept (--repeats)",),
    ),
    Case("no filter", {"r": table(PLAIN, change=spelled(user=lambda r: r["user"] + str(r["when"])))}, R, n_users=30),
    Case(
        "a core",
        {"r": table(PLAIN, change=spelled(item=lambda r: "B999" if r is PURCHASES[0] else r["item"]))},
        f"{R} --core 3",
        n_interactions=29,
        says=("0 users, 1 items, 1 interactions",),
        times=False,
    ),
    Case(
        "a core that leaves nothing",
        {"r": table(PLAIN)},
        f"{R} --core 9",
        refused="no interaction is left of 30.*--core 9",
    ),
    # languages without blanks
    Case(
        "Chinese",
        {
            "r": lines(lambda r: amazon_2023(r) | {"text": CHINESE.format(r["when"])}),
        },
        R,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.kind)
def test_a_file_as_people_have_it(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    paths = {name: tmp_path / name for name in case.files}
    for name, write in case.files.items():
        write(paths[name])
    out = tmp_path / "out"
    options = case.options
    for name, path in paths.items():
        options = options.replace(f"{{{name}}}", str(path))
    status = main(["prepare", *options.split(), "--out", str(out), "--labels", "random", "--workers", "1"])
    screen = capsys.readouterr()
    said = " ".join((screen.out + screen.err).replace("\u2502", " ").split())
    if case.refused:
        assert status == 2
        assert pl.Series([said]).str.contains(f"(?s){case.refused}").item(), said
        assert "Traceback" not in said
        assert not out.exists()
        return
    assert status == 0, said
    dataset = Dataset(out)
    info = dataset.info
    assert (info.n_users, info.n_items, info.n_interactions) == (case.n_users, case.n_items, case.n_interactions), said
    for words in case.says:
        assert words in said
    for item, title in case.titles.items():
        assert dataset.items.filter(pl.col("item_id") == item)["title"].to_list() == [title]
    if case.times:
        known = sorted(row["when"] for row in PURCHASES)
        assert sorted(dataset.interactions.timestamp.tolist()) == known


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("anna\t2009-05-04T23:08:57Z\tB1\tDeep Dish\t\tFabric 25", "--columns user=1,item=3,timestamp=2"),
        ("anna,B1,5,2019-03-01", "--columns user=1,item=2,rating=3,timestamp=4"),
        ("7,12,3.0,1420070400", "--columns user=1,item=2,rating=3,timestamp=4"),
        ("7,12,3.0", "--columns user=1,item=2 --order file"),
    ],
)
def test_a_table_without_names_is_told_by_its_first_line_how_it_may_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, option: str
) -> None:
    (tmp_path / "log.tsv").write_text(f"{line}\n" * 3)
    command = ["prepare", "--reviews", str(tmp_path / "log.tsv"), "--out", str(tmp_path / "out"), "--labels", "random"]
    assert main(command) == 2
    assert f"seems to have no header; name its columns by their places, such as {option} (" in " ".join(
        capsys.readouterr().err.split()
    )
    assert main([*command, *option.split()]) == 0


def test_a_p5_folder_made_by_hand_tells_what_is_wrong_with_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    record = {"user": "1", "item": 2, "explanation": "nice"}
    texts = {"train": [record, {**record, "user": 9}, {**record, "explanation": ""}], "valid": []}
    p5 = write_p5(tmp_path / "p5", {1: [1, 2, 3, 4], 2: [4, 1], 3: [2, 3, 2, 4]}, explanation=texts)
    for name in ("sequential.txt", "explanation.json"):
        (p5 / name).write_bytes(b"\xef\xbb\xbf" + (p5 / name).read_bytes())
    (p5 / "negative.txt").write_text("1 4 99\n3 1\n7 1\n")
    out = tmp_path / "out"
    assert main(["prepare", "--p5", str(p5), "--out", str(out)]) == 0
    said = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    for words in (
        "users whose negatives hold their own test item, which makes figures wrong: 1 (such as user 1)",
        "negatives left out, being no item of the folder: 1 (such as user 1, item 99)",
        "users without negatives in negative.txt: 1 (such as user user-2)",
        "users in negative.txt whom the folder does not have: 1 (such as 7)",
        "explanations without interaction or text, left out 2",
        "repeats of a user and item, dropped, the first stays (--repeats) 1",
    ):
        assert words in said
    assert Dataset(out).info.n_interactions == 9


def test_openp5_has_ids_where_p5_has_numbers(tmp_path):
    folder = tmp_path / "openp5"
    folder.mkdir()
    (folder / "user_sequence.txt").write_text("AAA B1 B2 B3\nBBB B3 B1\n")
    assert main(["prepare", "--p5", str(folder), "--out", str(tmp_path / "out")]) == 0
    dataset = Dataset(tmp_path / "out")
    assert dataset.users["user_id"].to_list() == ["AAA", "BBB"]
    indptr, items = dataset.sequences("test")
    assert dataset.items["item_id"].gather(items[indptr[1] : indptr[2]]).to_list() == ["B3", "B1"]


def test_a_p5_folder_of_numbers_needs_its_maps(tmp_path, capsys):
    p5 = write_p5(tmp_path / "p5", {1: [1, 2, 3]})
    (p5 / "datamaps.json").unlink()
    assert main(["prepare", "--p5", str(p5), "--out", str(tmp_path / "out")]) == 2
    assert "datamaps.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("repeats", "times", "said"),
    [
        ("first", [3, 5], "the heaviest event, of equal ones the first, stays (--repeats) 4"),
        ("last", [4, 6], "the heaviest event, of equal ones the last, stays (--repeats) 4"),
        ("keep", [1, 2, 3, 4, 5, 6], "all events count alike, whatever their weight"),
    ],
)
def test_the_heaviest_of_a_users_events_with_an_item_stays_at_its_time(
    tmp_path, capsys, monkeypatch, repeats, times, said
):
    monkeypatch.setenv("COLUMNS", "200")
    events = ("A,view", "A,cart", "A,buy", "A,buy", "B,view", "B,view")
    rows = [f"u,{event},{START + day * DAY}" for day, event in enumerate(events, 1)]
    (tmp_path / "r.csv").write_text("\n".join(["user,item,event,time", *rows]))
    command = ["prepare", "--reviews", str(tmp_path / "r.csv"), "--out", str(tmp_path / "out"), "--labels", "random"]
    weights = ["--event-column", "event", "--events", "view=1,cart=2,buy=5", "--repeats", repeats]
    assert main([*command, *weights]) == 0
    assert said in " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    kept = Dataset(tmp_path / "out").interactions.timestamp
    assert [(time - START) // DAY for time in kept.tolist()] == times


@pytest.mark.parametrize(("repeats", "left_out"), [("first", True), ("keep", False)])
def test_where_people_buy_again_what_they_have_may_be_the_answer(tmp_path, repeats, left_out):
    """The evaluation excludes a user's history from the answers only where repeats were dropped."""
    rows = [f"u{u},i{item},{START + DAY * day}" for u in range(4) for day, item in enumerate((1, 2, 3, 1, 2, 1))]
    (tmp_path / "r.csv").write_text("\n".join(["user,item,time", *rows]))
    made = prepare(PrepareConfig(out=tmp_path / "out", reviews=(tmp_path / "r.csv",), repeats=repeats, labels="random"))
    assert (made.info.n_interactions, made.n_repeats) == ((12, 12) if left_out else (24, 12))
    dataset = Dataset(tmp_path / "out")
    asked = questions(dataset, "test")
    assert all((asked.targets[q] in asked.seen(q)) is False for q in range(4))
    assert all((asked.targets[q] in asked.history(q)) is not left_out for q in range(4))
    assert TrainingHistories.of(dataset).repeats is not left_out
    findings = {finding.check: finding for finding in audit(dataset).findings}
    assert not findings["duplicated interactions"].violates_clean
