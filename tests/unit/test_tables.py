import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data import tables
from training.data.tables import Layout, Tally
from training.data.values import Notes


def cut(text, separator=",", quoting="minimal"):
    tally, notes = Tally(), Notes()
    found = list(tables.rows(iter(io.StringIO(text, newline="")), Layout(separator, quoting), tally, notes))
    assert tally.n_lines == len(io.StringIO(text, newline="").readlines())
    assert tally.n_lines == len(found) + tally.n_blank + tally.n_joined, "every line is accounted for"
    return found, tally, notes


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.text('ab,"\n\t ', max_size=6), min_size=3, max_size=3), min_size=2, max_size=8))
def test_what_csv_writes_is_read_back_unless_its_lines_are_rows_by_themselves(rows):
    file = io.StringIO(newline="")
    csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    found, _, notes = cut(file.getvalue())
    if not notes.seen:
        assert [fields for _, fields in found] == rows


@settings(max_examples=150, deadline=None)
@given(st.text('ab,"\n\r\\', max_size=80))
def test_no_line_is_lost_whatever_stands_in_it(text):
    cut(text)


def test_a_lone_quotation_mark_swallows_no_rows():
    lines = [f"u{n}\ti{n}\t{chr(34) if n in (3, 7) else ''}word {n}" for n in range(10)]
    found, tally, notes = cut("user\titem\ttext\n" + "\n".join(lines) + "\n", "\t")
    assert [fields[0] for _, fields in found] == ["user", *(f"u{n}" for n in range(10))]
    assert found[4] == (5, ["u3", "i3", '"word 3'])
    assert tally.n_joined == 0
    assert notes.seen == {tables.PLAIN_QUOTES: (5, "line 5")}


def test_a_quotation_mark_that_never_closes_costs_no_rows_either(monkeypatch):
    monkeypatch.setattr(tables, "MAX_LINES", 5)
    lines = [f"u{n},i{n},{chr(34) if n == 3 else ''}t" for n in range(20)]
    found, _, _ = cut("\n".join(lines))
    assert [fields[0] for _, fields in found] == [f"u{n}" for n in range(20)]
    found, tally, _ = cut('a,b,"' + "words\n" * 20)
    assert found[0] == (1, "a quotation mark is not closed within 5 lines")
    assert tally.n_joined >= 4


def test_texts_of_several_lines_stay_whole():
    found, tally, notes = cut('a,b,c\nu,"one\ntwo, three\n\nfour",x\nv,w,x\n')
    assert [fields for _, fields in found] == [["a", "b", "c"], ["u", "one\ntwo, three\n\nfour", "x"], ["v", "w", "x"]]
    assert (tally.n_joined, tally.n_blank, notes.seen) == (3, 0, {})


def test_backslash_escapes_are_understood_where_they_fit():
    found, _, _ = cut('id;title;x\n1;"L\'\\"enfant\\"; et";y\n2;"C:\\";z\n', ";")
    assert [fields for _, fields in found[1:]] == [["1", 'L\'"enfant"; et', "y"], ["2", "C:\\", "z"]]


@pytest.mark.parametrize(
    ("line", "separator"),
    [
        ("user,item,time", ","), ("user;item;a,b;c", ";"), ("user\titem name", "\t"), ("a|b|c", "|"),
        ("1::1193::5::978300760", "::"), ("1  2   3", tables.BLANKS), ('"a,b";"c,d,e";f', ";"), ("word", None),
    ],
)  # fmt: skip
def test_the_separator_is_told_by_the_first_line(line, separator):
    assert tables.find_separator(line) == separator


def test_plain_tables_take_quotation_marks_as_they_are():
    assert cut('1::"a::b\n', "::")[0] == [(1, ["1", '"a', "b"])]
    assert cut('1  2\t"3\n\n', tables.BLANKS)[0] == [(1, ["1", "2", '"3'])]
    assert cut('a,"b\nc,d\n', quoting="none")[0] == [(1, ["a", '"b']), (2, ["c", "d"])]
