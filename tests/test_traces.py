"""Traces by round: what is read, and what is refused before a run."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from joulewise.errors import TraceError
from joulewise.traces import QUANTITIES, Trace, read_trace


@pytest.fixture
def file(tmp_path):
    def write(content, name="sun.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_a_trace_for_all_clients_is_read_in_any_order_of_its_lines(file):
    trace = read_trace(file("round,joules\n2, 1.5\n\n1,0\n3,2e-3\n"), "joules")
    assert (trace.rounds, trace.clients) == (3, None)
    assert [trace.at(number, 17) for number in (1, 2, 3)] == [0, 1.5, 0.002]
    assert trace.table(2, [4, 9]).tolist() == [[0, 0], [1.5, 1.5]]


def test_a_trace_by_client_is_read_whatever_the_order_of_its_columns(file):
    trace = read_trace(file("\ufefffactor,client,round\r\n2,0,1\r\n1,7,1\r\n4,0,2\r\n0.5,7,2\r\n"), "factor")
    assert trace.clients == (0, 7)
    assert trace.at(2, 7) == 0.5
    assert trace.table(2, [7, 0]).tolist() == [[1, 2], [0.5, 4]]


def test_availability_is_one_or_zero(file):
    trace = read_trace(file("round,client,available\n1,0,1\n1,1,0\n"), "available")
    assert trace.values.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", " is empty; its first line names the columns, such as round,joules"),
        (
            "round,watts\n1,2\n",
            " has no column 'joules', but 'round,watts'; expected round,joules or round,client,joules",
        ),
        ("joules\n1\n", " has no column 'round', but 'joules'; expected round,joules or round,client,joules"),
        (
            "round,joules,node\n1,2,3\n",
            " has the unknown column 'node'; expected round,joules or round,client,joules",
        ),
        ("round,joules,round\n1,2,1\n", " has a column twice; expected round,joules or round,client,joules"),
        ("round,joules\n", " has no line below the names of its columns; add one for each round"),
        ("round,joules\n1,2,3\n", ", line 2 has 3 values, expected 2: round,joules"),
        ("round,joules\n1\n", ", line 2 has 1 values, expected 2: round,joules"),
        ("round,joules\n\n1,nan\n", ", line 3: joules is 'nan', expected finite joules of at least 0"),
        ("round,joules\n1,inf\n", ", line 2: joules is 'inf', expected finite joules of at least 0"),
        ("round,joules\n1,1e999\n", ", line 2: joules is '1e999', expected finite joules of at least 0"),
        ("round,joules\n1,-2\n", ", line 2: joules is '-2', expected finite joules of at least 0"),
        ("round,joules\n1,1_0\n", ", line 2: joules is '1_0', expected finite joules of at least 0"),
        ("round,joules\n1,\n", ", line 2: joules is '', expected finite joules of at least 0"),
        ("round,joules\n0,1\n", ", line 2: round is '0', expected a whole number of at least 1"),
        ("round,joules\n1.0,1\n", ", line 2: round is '1.0', expected a whole number of at least 1"),
        ("round,joules\n²,1\n", ", line 2: round is '²', expected a whole number of at least 1"),
        ("round,joules\n9999999999,1\n", ", line 2: round is '9999999999', expected a whole number of at least 1"),
        ("round,client,joules\n1,-1,1\n", ", line 2: client is '-1', expected a whole number of at least 0"),
        ("round,joules\n1,1\n1,2\n", ", line 3 gives round 1 a second time; leave one of the lines out"),
        (
            "round,client,joules\n1,5,1\n1,5,2\n",
            ", line 3 gives round 1 for client 5 a second time; leave one of the lines out",
        ),
        ("round,joules\n1,1\n3,2\n", " has no line for round 2, but goes on to round 3; add the line"),
        ("round,joules\n999999999,1\n", " has no line for round 1, but goes on to round 999999999; add the line"),
        (
            "round,client,joules\n1,0,1\n1,1,1\n2,0,1\n",
            " has no line for round 2 for client 1, but goes on to round 2; add the line",
        ),
        ('round,joules\n1,"1\n', ", line 2 is no CSV: unexpected end of data; quotes are not needed in a trace"),
        (b"round,joules\n1,\xff\n", " is not UTF-8 text; save it as CSV in UTF-8"),
    ],
)
def test_what_is_no_trace_is_refused_with_its_line(file, content, words):
    path = file(content)
    with pytest.raises(TraceError) as refused:
        read_trace(path, "joules")
    assert str(refused.value) == f"{path}{words}"


@pytest.mark.parametrize(
    ("quantity", "value", "words"),
    [
        ("factor", "0", "factor is '0', expected a finite factor above 0"),
        ("factor", "-1", "factor is '-1', expected a finite factor above 0"),
        ("available", "0.5", "available is '0.5', expected 1 for a client that takes part, or 0"),
        ("available", "yes", "available is 'yes', expected 1 for a client that takes part, or 0"),
        ("joules", "x" * 50, f"joules is '{'x' * 37}...', expected"),
    ],
)
def test_a_value_that_its_quantity_does_not_have_is_refused(file, quantity, value, words):
    with pytest.raises(TraceError) as refused:
        read_trace(file(f"round,{quantity}\n1,{value}\n"), quantity)
    assert words in str(refused.value)


def test_a_file_that_is_not_there_and_a_quantity_that_is_none_are_refused(tmp_path):
    with pytest.raises(TraceError, match=r"trace '.*gone\.csv' cannot be read: No such file or directory"):
        read_trace(tmp_path / "gone.csv", "joules")
    with pytest.raises(TraceError, match="quantity is 'watts', expected one of: joules, factor, available"):
        read_trace(tmp_path / "gone.csv", "watts")


def test_a_trace_that_ends_before_the_run_or_lacks_a_client_is_refused_before_it():
    short = Trace("sun.csv", "joules", np.ones((20, 2)), (0, 1))
    short.check(20, [1, 0])
    for rounds, words in ((30, "rounds 21 to 30, or run 20 rounds"), (21, "round 21, or run 20 rounds")):
        with pytest.raises(TraceError, match=f"sun.csv ends with round 20, but the run has {rounds} .*for {words}"):
            short.check(rounds, [0])
    with pytest.raises(TraceError, match="no lines for client 2 and 1 other clients; add them, or leave the column"):
        short.table(3, [3, 0, 2])
    with pytest.raises(TraceError, match="round is 0, expected at least 1"):
        short.at(0, 1)
    with pytest.raises(TraceError, match="ends with round 20"):
        short.at(21, 1)


@given(st.binary(max_size=60), st.sampled_from(QUANTITIES), st.booleans())
def test_any_bytes_are_a_trace_or_refused(tmp_path_factory, content, quantity, headed):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes((f"round,{quantity}\n1,".encode() if headed else b"") + content)
    try:
        trace = read_trace(path, quantity)
    except TraceError:
        return
    assert np.isfinite(trace.values).all()
    assert trace.values.min() >= 0


@given(st.dictionaries(st.integers(0, 50), st.lists(st.floats(0, 1e300), min_size=3, max_size=3), min_size=1))
def test_what_is_written_is_read(tmp_path_factory, numbers):
    lines = [f"{r},{client},{each[r - 1]!r}" for client, each in numbers.items() for r in (3, 1, 2)]
    path = tmp_path_factory.getbasetemp() / "written.csv"
    path.write_text("\n".join(["round,client,joules", *lines]))
    trace = read_trace(path, "joules")
    assert all(trace.at(r, client) == each[r - 1] for client, each in numbers.items() for r in (1, 2, 3))
    assert not math.isnan(trace.values.sum())
