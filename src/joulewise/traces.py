"""Traces by round, from CSV files: joules that batteries gain, factors on a link's energy, who is there.

    round,joules            round,client,joules           round,client,available
    1,0.5                   1,0,0.5                        1,0,1
    2,0                     1,1,0                          1,1,0

Rounds and clients are whole numbers; the first round is 1, clients are partitions and begin at 0. Without a column
``client`` a line is for every client. Each round, and each client in it, has one line, in any order.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from joulewise.errors import TraceError

Quantity = Literal["joules", "factor", "available"]
"""What a trace tells: joules by which batteries are recharged before the round; a factor above 0 on the energy of the
client's link; whether the client takes part, 1 or 0."""

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
LARGEST_FILE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One number for each round, or for each round and client.

    Args:
        file: where it came from, for errors.
        quantity: what the numbers are.
        values: float64[rounds, clients]; one column where it is the same for every client.
        clients: whose the columns are, rising; None where there is one for all.
    """

    file: str
    quantity: Quantity
    values: npt.NDArray[np.float64]
    clients: tuple[int, ...] | None

    @property
    def rounds(self) -> int:
        """How many rounds it tells of."""
        return len(self.values)

    def check(self, rounds: int, clients: Sequence[int]) -> None:
        """Refuse a trace that does not tell of all rounds and clients of a run.

        Raises:
            TraceError: it ends before the run, or lacks a client.

        Example:
            >>> Trace("sun.csv", "joules", np.ones((20, 1)), None).check(30, [0, 1])
            Traceback (most recent call last):
                ...
            joulewise.errors.TraceError: sun.csv ends with round 20, but the run has 30 rounds; add lines for rounds
            21 to 30, or run 20 rounds
        """
        if self.rounds < rounds:
            more = f"rounds {self.rounds + 1} to {rounds}" if self.rounds + 1 < rounds else f"round {rounds}"
            raise TraceError(
                f"{self.file} ends with round {self.rounds}, but the run has {rounds} rounds; add lines for {more}, or "
                f"run {self.rounds} rounds"
            )
        missing = [] if self.clients is None else sorted(set(clients) - set(self.clients))
        if missing:
            more = f" and {len(missing) - 1} other clients" if len(missing) > 1 else ""
            raise TraceError(
                f"{self.file} has no lines for client {missing[0]}{more}; add them, or leave the column client out for "
                "the same trace everywhere"
            )

    def at(self, number: int, client: int) -> float:
        """The number of a round and client that `check` found to be there.

        Raises:
            TraceError: it is not there.

        Example:
            >>> Trace("sun.csv", "joules", np.array([[0.5], [2.0]]), None).at(2, client=7)
            2.0
        """
        self.check(number, (client,))
        if number < 1:
            raise TraceError(f"round is {number}, expected at least 1: the first round of a trace is 1")
        return float(self.values[number - 1, 0 if self.clients is None else self.clients.index(client)])

    def table(self, rounds: int, clients: Sequence[int]) -> npt.NDArray[np.float64]:
        """The numbers of a run, float64[rounds, clients], in the order of `clients`.

        Raises:
            TraceError: it ends before the run, or lacks a client.

        Example:
            >>> Trace("sun.csv", "joules", np.array([[0.5], [2.0]]), None).table(2, [3, 4])
            array([[0.5, 0.5],
                   [2. , 2. ]])
        """
        self.check(rounds, clients)
        found = {client: column for column, client in enumerate(self.clients or ())}
        return self.values[:rounds, [found.get(client, 0) for client in clients]]


def read_trace(path: str | Path, quantity: Quantity) -> Trace:
    r"""Read a CSV file of ``round,QUANTITY`` or ``round,client,QUANTITY``.

    Args:
        path: of the file, UTF-8.
        quantity: ``joules``, ``factor`` or ``available``.

    Raises:
        TraceError: it cannot be read; a column is missing, twice or unknown; a number is none, not finite or out of
            range; a round, or a client in it, is missing or twice. Says the line and what to do.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "sun.csv"
        >>> _ = path.write_text("round,joules\n1,0.5\n2,0\n")
        >>> read_trace(path, "joules").values.tolist()
        [[0.5], [0.0]]
    """
    if quantity not in QUANTITIES:
        raise TraceError(f"quantity is {quantity!r}, expected one of: {', '.join(QUANTITIES)}")
    file = str(path)
    lines = list(_lines(Path(path)))
    if not lines:
        raise TraceError(f"{file} is empty; its first line names the columns, such as round,{quantity}")
    columns = _columns(file, lines[0][1], quantity)
    cells: dict[tuple[int, int], float] = {}
    for number, line in lines[1:]:
        where = f"{file}, line {number}"
        if len(line) != len(columns):
            raise TraceError(f"{where} has {len(line)} values, expected {len(columns)}: {','.join(columns)}")
        row = dict(zip(columns, line, strict=True))
        key = _whole(where, "round", row["round"], 1), _whole(where, "client", row.get("client", "0"), 0)
        if key in cells:
            for_client = f" for client {key[1]}" if "client" in columns else ""
            raise TraceError(f"{where} gives round {key[0]}{for_client} a second time; leave one of the lines out")
        cells[key] = _value(where, quantity, row[quantity])
    return _arranged(file, quantity, cells, "client" in columns)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not empty, with their numbers."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise TraceError(f"trace {str(path)!r} cannot be read: {error.strerror or error}") from error
    if len(content) > LARGEST_FILE_BYTES:
        raise TraceError(f"{path} has more than {LARGEST_FILE_BYTES >> 20} MiB; give one trace, of one run")
    try:
        text = content.decode("utf-8-sig")
        reader = csv.reader(text.splitlines(), strict=True)
        for line in reader:
            if any(cell.strip() for cell in line):
                yield reader.line_num, [cell.strip() for cell in line]
    except UnicodeDecodeError:
        raise TraceError(f"{path} is not UTF-8 text; save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise TraceError(
            f"{path}, line {reader.line_num} is no CSV: {error}; quotes are not needed in a trace"
        ) from None


def _columns(file: str, header: list[str], quantity: Quantity) -> list[str]:
    expected = f"round,{quantity} or round,client,{quantity}"
    for name in ("round", quantity):
        if name not in header:
            raise TraceError(f"{file} has no column {name!r}, but {_shown(','.join(header))}; expected {expected}")
    unknown = [name for name in header if name not in ("round", "client", quantity)]
    if unknown or len(set(header)) < len(header):
        fault = f"the unknown column {_shown(unknown[0])}" if unknown else "a column twice"
        raise TraceError(f"{file} has {fault}; expected {expected}")
    return header


def _whole(where: str, name: str, text: str, least: int) -> int:
    # int() would take signs, underscores and digits of other scripts as well.
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) >= least):
        raise TraceError(f"{where}: {name} is {_shown(text)}, expected a whole number of at least {least}")
    return int(text)


def _value(where: str, quantity: Quantity, text: str) -> float:
    expected = {
        "joules": "finite joules of at least 0",
        "factor": "a finite factor above 0",
        "available": "1 for a client that takes part, or 0",
    }[quantity]
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    fits = {"joules": value >= 0, "factor": value > 0, "available": value in (0, 1)}[quantity]
    if not (fits and math.isfinite(value)):
        raise TraceError(f"{where}: {quantity} is {_shown(text)}, expected {expected}")
    return abs(value)  # -0.0 is 0


def _arranged(file: str, quantity: Quantity, cells: dict[tuple[int, int], float], by_client: bool) -> Trace:
    if not cells:
        raise TraceError(f"{file} has no line below the names of its columns; add one for each round")
    rounds, clients = max(number for number, _ in cells), sorted({client for _, client in cells})
    if len(cells) < rounds * len(clients):
        number, client = next(key for key in _all(rounds, clients) if key not in cells)
        for_client = f" for client {client}" if by_client else ""
        raise TraceError(
            f"{file} has no line for round {number}{for_client}, but goes on to round {rounds}; add the line"
        )
    values = np.array([cells[key] for key in _all(rounds, clients)]).reshape(rounds, len(clients))
    return Trace(file, quantity, values, tuple(clients) if by_client else None)


def _all(rounds: int, clients: Sequence[int]) -> Iterator[tuple[int, int]]:
    return ((number, client) for number in range(1, rounds + 1) for client in clients)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
