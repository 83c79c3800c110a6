"""From the bytes of a TOML file to a checked record, with errors that say where and what to do."""

from __future__ import annotations

import json
import re
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from joulewise import schema
from joulewise.errors import ArgumentError, ProfileError

LARGEST_FILE_BYTES = 1 << 20
DEEPEST = 8
"""Tables inside of tables that are looked at; whatever lies deeper belongs to no device and is refused as unknown."""

_WORDS = {
    " | null": "",
    "Expected float": "expected a number",
    "Expected int": "expected a whole number",
    "Expected str": "expected text",
    "Expected object": "expected a table",
    "Number out of range": "the number is out of range",
    " of length >= 1": " that is not empty",
    " >= ": " of at least ",
    " <= ": " of at most ",
}


def read(path: Path, largest: int = LARGEST_FILE_BYTES) -> bytes:
    """The bytes of a file of at most `largest` bytes.

    Raises:
        ProfileError: it is not there, cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
    except OSError as error:
        raise ProfileError(f"device file {str(path)!r} cannot be read: {error.strerror or error}") from error
    if len(content) > largest:
        raise ProfileError(f"device file {str(path)!r} has more than {largest} bytes; give the file of one device")
    return content


def refuse_ending(out: Path) -> None:
    """Refuse a file to write that could not be given as a device: without its ending a path is taken for a name.

    Raises:
        ArgumentError: it does not end in ``.toml``.
    """
    if out.suffix != ".toml":
        raise ArgumentError(f"--out {out} does not end in .toml, as the file of a device does; give {out}.toml")


def tables(content: bytes, file: str) -> dict[str, Any]:
    """The tables of a TOML file; a byte order mark before them is no matter.

    Raises:
        ProfileError: it is not UTF-8 text or not TOML.
    """
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ProfileError(
            f"device file {file!r} is not UTF-8 text at byte {error.start}; give a TOML text file"
        ) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProfileError(f"device file {file!r} is not TOML: {error}; mend that place") from None


def check_texts(raw: dict[str, Any], file: str, place: str = "") -> None:
    """Refuse what would steer a terminal, or a page, instead of being read.

    That is control characters other than line breaks and tabs, and those that turn the direction of text.

    Raises:
        ProfileError: naming the place and the first of them.

    Example:
        >>> check_texts({"link": {"source": "a table, page 3"}}, "radio.toml")
    """
    for key, value in raw.items():
        where = f"{place}.{key}".removeprefix(".")
        found = [each for each in f"{key}{value}" if _steers(each)] if isinstance(value, str) else filter(_steers, key)
        wrong = next(iter(found), None)
        if wrong is not None:
            shown = where.encode("unicode_escape").decode()
            raise ProfileError(
                f"device file {file!r}: {shown}: holds the control character {wrong!a}, expected text for a reader; "
                "take it out"
            )
        if isinstance(value, dict) and where.count(".") < DEEPEST:
            check_texts(value, file, where)


def _steers(character: str) -> bool:
    turns = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    return turns or (unicodedata.category(character) == "Cc" and character not in "\n\t")


def sentence(error: msgspec.ValidationError, raw: dict[str, Any], record: type, file: str) -> str:
    """What is wrong with the tables `raw` of a file that could not be converted to `record`."""
    fault = schema.fault(error, raw, record, {})
    where = fault.where.removeprefix("$").removeprefix(".")
    expected, comma, came = fault.fact.partition(", got ")
    for theirs, ours in _WORDS.items():
        expected = expected.replace(theirs, ours)
    hint = fault.hint
    if expected == "expected a table" and re.fullmatch(r"[0-9.e+-]+", came):
        hint = "a number is a table of value, unit, kind, source and year"
    place = f"{where}: " if where else ""
    return f"device file {file!r}: {place}{expected}{comma}{came}" + (f"; {hint}" if hint else "")


def dumps(record: msgspec.Struct) -> str:
    r"""A record of quantities as the text of a TOML file, in the order of its fields.

    Example:
        >>> class Cell(msgspec.Struct):
        ...     name: str
        >>> print(dumps(Cell('so "called"')), end="")
        name = "so \"called\""
    """
    return "\n".join(_lines(msgspec.to_builtins(record), ())).lstrip("\n") + "\n"


def _lines(table: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    scalars = {key: value for key, value in table.items() if key not in inner and value is not None}
    if path and scalars:
        yield f"\n[{'.'.join(path)}]"
    for key, value in scalars.items():
        yield f"{key} = {_text(value) if isinstance(value, str) else repr(value)}"
    for key, value in inner.items():
        yield from _lines(value, (*path, key))


def _text(value: str) -> str:
    """A TOML string. JSON's differs from it in DEL alone; a file name may hold halves of surrogate pairs."""
    return json.dumps(value.encode("utf-8", "replace").decode("utf-8"), ensure_ascii=False).replace("\x7f", "\\u007f")
