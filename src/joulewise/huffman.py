"""Prefix codes for symbols of eight bits, one code per tensor, written level by level.

Four codes compete, all complete and at most 15 bits long. Three need no table: balanced (all symbols of a
range alike), rising and falling (unary from the lowest or the highest symbol). The fourth is Huffman's, with
its code lengths (D. A. Huffman, "A Method for the Construction of Minimum-Redundancy Codes", Proc. IRE,
1952). Codes are canonical.

The stream holds the first bit of every symbol, then the second bit of each symbol that has one, and so on:
all symbols of a level are coded at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from joulewise import refusals
from joulewise.bits import Bits, Counts, Reader

SYMBOLS = 256
LONGEST = 15
"""Longest code in bits."""

BALANCED, RISING, FALLING, HUFFMAN = range(4)
MANY = 63
"""From this many symbols beyond the first, their number takes a second byte."""

CLOSED = 0x8000
LEAF = 1 << 30


@dataclass(frozen=True, slots=True)
class Code:
    """The prefix code of one tensor.

    Args:
        low: the lowest symbol.
        kind: 0 balanced, 1 rising, 2 falling, 3 Huffman.
        lengths: code length of ``low``, ``low + 1``, ...: 0 for a symbol that does not occur, or a lone one.

    Example:
        >>> choose((0, 0, 60, 30, 7, 3))
        Code(low=2, kind=1, lengths=(1, 2, 3, 3))
    """

    low: int
    kind: int
    lengths: tuple[int, ...]

    def bits(self, histogram: Sequence[int]) -> int:
        """Bits that the symbols of a histogram take, without the table."""
        stop = self.low + len(self.lengths)
        return sum(n * length for n, length in zip(histogram[self.low : stop], self.lengths, strict=True))

    def table(self) -> bytes:
        """What a decoder must know: lowest symbol, kind and number of symbols, and Huffman's code lengths.

        Example:
            >>> Code(120, HUFFMAN, (2, 0, 2, 1)).table().hex()
            '78c30212'
        """
        more = len(self.lengths) - 1
        written = bytearray([self.low, self.kind << 6 | min(more, MANY)])
        if more >= MANY:
            written.append(more - MANY)
        if self.kind == HUFFMAN:
            even = (*self.lengths, 0)[: len(self.lengths) + len(self.lengths) % 2]
            written += bytes(low | high << 4 for low, high in zip(even[::2], even[1::2], strict=True))
        return bytes(written)


@lru_cache(maxsize=1024)  # Whoever decodes checks the choice: in one process it is made once.
def choose(histogram: tuple[int, ...]) -> Code:
    """The code with the fewest bits, its table included, for symbols that occur so often; first of equals.

    Args:
        histogram: how often each symbol occurs, from symbol 0; at least one occurs.
    """
    low = next(symbol for symbol, count in enumerate(histogram) if count)
    count = len(histogram) - low - next(place for place, count in enumerate(reversed(histogram)) if count)
    kinds = [BALANCED, *([RISING, FALLING] if 2 < count <= LONGEST + 1 else [])]
    simple = [Code(low, kind, _known_lengths(kind, count)) for kind in kinds]
    best = min(simple, key=lambda code: code.bits(histogram))
    table_bits = 8 * ((count + 1) // 2)
    if best.bits(histogram) <= table_bits + sum(histogram):
        return best
    huffman = Code(low, HUFFMAN, _huffman_lengths(histogram[low : low + count]))
    return huffman if huffman.bits(histogram) + table_bits < best.bits(histogram) else best


def read_code(reader: Reader, highest: int) -> Code:
    """Read back what `Code.table` wrote.

    Raises:
        PayloadError: it is cut off, a symbol is above `highest`, or the lengths make no complete code.
    """
    low, second = reader.byte("a value table"), reader.byte("a value table")
    kind, count = second >> 6, (second & MANY) + 1
    if count == MANY + 1:
        count += reader.byte("a value table")
    if low + count - 1 > highest:
        raise refusals.symbol_too_high(low + count - 1, highest)
    if kind != HUFFMAN:
        if kind != BALANCED and count > LONGEST + 1:
            raise refusals.long_unary_code(count, LONGEST + 1)
        return Code(low, kind, _known_lengths(kind, count))
    packed = reader.take((count + 1) // 2, "a value table")
    lengths = [length for pair in packed for length in (pair & 15, pair >> 4)]
    if sum(1 << (LONGEST - length) for length in lengths if length) != 1 << LONGEST or any(lengths[count:]):
        raise refusals.incomplete_code()
    return Code(low, kind, tuple(lengths[:count]))


def write_symbols(keys: npt.NDArray[np.intp], codes: Sequence[Code | None]) -> list[Bits]:
    """Write symbols level by level.

    Args:
        keys: ``256 * tensor + symbol`` of every value.
        codes: the code of each tensor; None where nothing is kept.

    Returns:
        One piece of the bit stream per level.

    Example:
        >>> [level.tolist() for level in write_symbols(np.array([2, 4, 3]), [Code(2, RISING, (1, 2, 2))])]
        [[0, 1, 1], [1, 0]]
    """
    book = np.zeros((len(codes), SYMBOLS), np.uint16)
    for row, code in zip(book, codes, strict=True):
        if code is not None:
            row[code.low : code.low + len(code.lengths)] = _words(code.lengths)
    words, levels = book.reshape(-1).take(keys), []
    words = words[words != CLOSED]
    while len(words):
        levels.append((words >> np.uint16(LONGEST)).astype(np.uint8))
        words <<= np.uint16(1)
        words = words[words != CLOSED]
    return levels


def read_symbols(bits: Bits, counts: Counts, codes: Sequence[Code | None]) -> tuple[Bits, int]:
    """Read back what `write_symbols` wrote.

    Returns:
        The symbols uint8[sum(counts)], and how many bits they took.

    Raises:
        PayloadError: the bits end before the symbols do.
    """
    children, roots = _trees(codes)
    states = np.repeat(roots, counts)
    found, live, at = states.astype(np.uint8), np.flatnonzero(states < LEAF), 0
    states = states[live]
    while len(live):
        if at + len(live) > len(bits):
            raise refusals.cut_off_values()
        states <<= 1
        states |= bits[at : at + len(live)]
        at += len(live)
        states = children.take(states)
        done = states >= LEAF
        found[live[done]] = states[done].astype(np.uint8)
        open_ = ~done
        live, states = live[open_], states[open_]
    return found, at


def _known_lengths(kind: int, count: int) -> tuple[int, ...]:
    if kind == BALANCED:
        width = (count - 1).bit_length()
        short = (1 << width) - count
        return (width - 1,) * short + (width,) * (count - short)
    rising = (*range(1, count), count - 1)
    return rising if kind == RISING else rising[::-1]


def _huffman_lengths(counts: Sequence[int]) -> tuple[int, ...]:
    """Huffman's code lengths, at most 15.

    While one is longer, all counts are halved, rounded up, and the code is made anew. Of equal counts
    the lower symbol, then the older node, is joined first.
    """
    while True:
        lengths = _unlimited_lengths(counts)
        if max(lengths) <= LONGEST:
            return lengths
        counts = [(count + 1) // 2 for count in counts]


def _unlimited_lengths(counts: Sequence[int]) -> tuple[int, ...]:
    heap = [(count, symbol) for symbol, count in enumerate(counts) if count]
    heapq.heapify(heap)
    parents: dict[int, int] = {}
    newest = len(counts)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        parents[first[1]] = parents[second[1]] = newest
        heapq.heappush(heap, (first[0] + second[0], newest))
        newest += 1
    depths = {newest - 1: 0}
    for node in range(newest - 2, -1, -1):
        if node in parents:
            depths[node] = depths[parents[node]] + 1
    return tuple(depths.get(symbol, 0) for symbol in range(len(counts)))


def _words(lengths: Sequence[int]) -> list[int]:
    """Canonical codes, first bit highest of 16, each closed by a one: a word used up has become `CLOSED`."""
    words, code, width = [CLOSED] * len(lengths), 0, 0
    for length, place in sorted((length, place) for place, length in enumerate(lengths) if length):
        code <<= length - width
        width = length
        words[place] = (code << 1 | 1) << (LONGEST - length)
        code += 1
    return words


def _trees(codes: Sequence[Code | None]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """All codes as one table of children, two per inner node, and each root; a leaf is ``LEAF | symbol``."""
    children: list[int] = []
    roots = [LEAF if code is None else _grow(code, children) for code in codes]
    return np.array(children or [0], np.int32), np.array(roots, np.int32)


def _grow(code: Code, children: list[int]) -> int:
    """Append the nodes of a canonical code, level by level; in each level leaves come before inner nodes."""
    if len(code.lengths) == 1:
        return LEAF | code.low
    root = node = len(children) // 2
    inner = 1
    for level in range(1, LONGEST + 1):
        leaves = [LEAF | code.low + place for place, length in enumerate(code.lengths) if length == level]
        inner = 2 * inner - len(leaves)
        children += [*leaves, *range(node + 1, node + 1 + inner)]
        node += inner
        if not inner:
            break
    return root
