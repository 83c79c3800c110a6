"""From the text of a study file to a checked record, with errors that say where and what to do."""

from __future__ import annotations

import difflib
import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from joulewise import schema
from joulewise.errors import StudyError

Record = TypeVar("Record", bound=msgspec.Struct)
Table = schema.Table

BUDGETS: dict[str, tuple[str, str]] = {
    "count": ("Count", "k"),
    "density": ("Density", "fraction"),
    "joules": ("Joules", "budget"),
    "bytes": ("Bytes", "n"),
    "price": ("Price", "value"),
    "threshold": ("Threshold", "value"),
}
"""Shorthand of a budget: its record, and the field that holds the amount."""

_RECORDS = "|".join(record for record, _ in BUDGETS.values())
_RECORD = re.compile(rf"\b({_RECORDS})(\([a-z]+\))?(?= must| budget|,| or |;|$)")
_NAMED = frozenset({"data", "model", "strategy", "partition", "rule", "schedule"})


def in_keys(message: str) -> str:
    """A message about budgets with the keys of a study file, for the records that they make.

    Example:
        >>> in_keys("CWMP does not take a Threshold budget; it takes Count, Density, Joules, Bytes or Price")
        'CWMP does not take a threshold budget; it takes count, density, joules, bytes or price'
    """
    return _RECORD.sub(lambda found: found[1].lower(), message)


@dataclass(frozen=True, slots=True)
class Source:
    """What the user wrote: the tables of a file with overrides applied, and where each came from.

    Args:
        file: name of the file, as the user gave it.
        tables: the TOML tables.
        overrides: text of each ``--set``, by the path that it set (``$.training.batch_size``).
    """

    file: str
    tables: Table
    overrides: Mapping[str, str] = field(default_factory=dict)


def read(path: str | Path, overrides: Sequence[str] = ()) -> Source:
    """Read a TOML file or the ``study.json`` of a run, and apply overrides (``training.batch_size=64``).

    The value of an override is TOML; what is not TOML is taken as a string.

    Raises:
        StudyError: the file cannot be read or is not TOML, an override is malformed, a number is not finite.
    """
    source = Source(str(path), _parse(Path(path)), {})
    settings: dict[str, str] = {}
    for text in overrides:
        keys, value = _split(text)
        _override(source.tables, keys, value, text)
        settings[".".join(["$", *keys])] = text
    source = Source(source.file, source.tables, settings)
    for where, number in _numbers(source.tables, "$"):
        if not math.isfinite(number):
            fact = f"expected a finite number, got {number} - at {_place(source, where)}"
            raise StudyError(f"{source.file}: {fact}; {_advice(source, where)}")
    return source


def decode(source: Source, record: type[Record]) -> Record:
    """Rewrite the shorthands of a study file, then decode it.

    Raises:
        StudyError: one sentence with file, path, expectation, fact and next step.
    """
    tables, typed = shorthands(source)
    try:
        return msgspec.convert(tables, record)
    except msgspec.ValidationError as error:
        fault = schema.fault(error, tables, record, {"budget": tuple(BUDGETS)})
    where = _typed(fault.where, typed)
    raise StudyError(
        f"{source.file}: {in_keys(fault.fact)} - at {_place(source, where)}; {fault.hint or _advice(source, where)}"
    )


# ---------------------------------------------------------------- file and overrides


def _parse(path: Path) -> Table:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors put a mark at the start
        return _json(path, text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        near = sorted(str(file) for folder in (path.parent, Path("studies")) for file in folder.glob("*.toml"))
        close = difflib.get_close_matches(str(path), near, n=1, cutoff=0.7)
        hint = f"did you mean {close[0]}?" if close else "check the path"
        raise StudyError(f"there is no study file {path}; {hint}") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: not UTF-8 text at byte {error.start}; a study is a TOML text file") from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); give the path of a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{path}: {_syntax(str(error))}; mend that line") from None


def _json(path: Path, text: str) -> Table:
    try:
        return dict(json.loads(text))
    except ValueError as error:
        raise StudyError(f"{path}: not a JSON object ({error}); give the study.json of a run, or a TOML file") from None


def _syntax(message: str) -> str:
    found = re.fullmatch(r"(.*) \(at (line \d+, column \d+|end of document)\)", message, re.DOTALL)
    return f"{found[2]}: {found[1]}" if found else message


def _split(text: str) -> tuple[list[str], Any]:
    key, sign, value = text.partition("=")
    given = " ".join(text.splitlines())
    expected = f"--set {given}: expected KEY.PATH=VALUE, for example --set training.batch_size=64"
    if not sign or not key.strip() or "\n" in text:
        raise StudyError(expected)
    node: Any
    try:
        node = tomllib.loads(f"{key} = 0")
    except tomllib.TOMLDecodeError:
        raise StudyError(expected) from None
    keys: list[str] = []
    while isinstance(node, dict) and len(node) == 1:
        ((name, node),) = node.items()
        keys.append(name)
    if node != 0:
        raise StudyError(expected)
    return keys, _value(value)


def _value(text: str) -> Any:
    for attempt in (text, json.dumps(text.strip(), ensure_ascii=False)):
        try:
            parsed = tomllib.loads(f"value = {attempt}")
        except tomllib.TOMLDecodeError:
            continue
        return parsed["value"]
    raise StudyError(f"--set ...={text}: expected a number, a text or another TOML value")


def _override(tables: Table, keys: Sequence[str], value: Any, text: str) -> None:
    *parents, last = keys
    table = tables
    for depth, key in enumerate(parents, start=1):
        inner = table.setdefault(key, {})
        if isinstance(inner, str) and key in _NAMED:
            inner = table[key] = {"name": inner}
        if not isinstance(inner, dict):
            where = ".".join(keys[:depth])
            raise StudyError(f"--set {text}: {where} is not a table, so nothing in it can be set; set it whole")
        table = inner
    table[last] = value


def _numbers(node: Any, where: str) -> Iterator[tuple[str, float]]:
    if isinstance(node, float):
        yield where, node
    elif isinstance(node, dict):
        for key, value in node.items():
            yield from _numbers(value, f"{where}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _numbers(value, f"{where}[{index}]")


# ---------------------------------------------------------------- shorthands


def shorthands(source: Source) -> tuple[Table, dict[str, str]]:
    """Write out shorthands: the tables to decode, and for each path in them the path that was typed.

    A string is ``{ name = string }`` where a record with a name is expected; ``density = [0.1]`` is a list of
    budgets; ``feedback = true`` is error feedback without decay or clipping; one battery is that of every device.

    Raises:
        StudyError: two budgets where one is expected, or an empty list in the grid.
    """
    typed: dict[str, str] = {}
    tables = _choice(source, source.tables, "$", typed)
    if isinstance(tables.get("data"), dict):
        tables["data"] = _choice(source, tables["data"], "$.data", typed)
    if isinstance(tables.get("fleet"), dict):
        tables["fleet"] = _fleet(source, tables["fleet"], typed)
    if isinstance(tables.get("compressor"), dict):
        tables["compressor"] = _choice(source, tables["compressor"], "$.compressor", typed)
    if isinstance(tables.get("grid"), dict):
        tables["grid"] = _grid(source, tables["grid"], typed)
    if isinstance(tables.get("arms"), list):
        tables["arms"] = [
            _choice(source, arm, f"$.arms[{index}]", typed) if isinstance(arm, dict) else arm
            for index, arm in enumerate(tables["arms"])
        ]
    if isinstance(tables.get("analysis"), dict):
        tables["analysis"] = _analysis(source, tables["analysis"], typed)
    return tables, typed


def _analysis(source: Source, table: Table, typed: dict[str, str]) -> Table:
    """The sides of each primary comparison are written as arms are."""
    primary = table.get("primary")
    if not isinstance(primary, list) or not all(isinstance(one, dict) for one in primary):
        return table
    rewritten = [dict(one) for one in primary]
    for index, one in enumerate(rewritten):
        for key in {"arm", "against"} & one.keys():
            if isinstance(one[key], dict):
                one[key] = _choice(source, one[key], f"$.analysis.primary[{index}].{key}", typed)
    return {**table, "primary": rewritten}


def _choice(source: Source, table: Table, where: str, typed: dict[str, str]) -> Table:
    rewritten: Table = {}
    # A budget at the top level is a mistake: it stays as it is, and is refused by its own name.
    short = BUDGETS if where.startswith(("$.arms", "$.compressor", "$.analysis.primary[")) else {}
    for key, value in table.items():
        target = "budget" if key in short else key
        if target in rewritten:
            first = next(name for name in table if name in {*short, "budget"})
            raise StudyError(
                f"{source.file}: {where[2:]} has two budgets, {first} and {key}; keep one, or list both in [grid]"
            )
        rewritten[target] = _item(source, key, value, f"{where}.{target}", f"{where}.{key}", typed)
    return rewritten


def _fleet(source: Source, table: Table, typed: dict[str, str]) -> Table:
    rewritten = _choice(source, table, "$.fleet", typed)
    battery = rewritten.get("battery")
    if isinstance(battery, dict) and not any(isinstance(value, dict) for value in battery.values()):
        rewritten["battery"] = {"every": battery}
        typed["$.fleet.battery.every"] = "$.fleet.battery"
    return rewritten


def _grid(source: Source, table: Table, typed: dict[str, str]) -> Table:
    rewritten: dict[str, list[Any]] = {}
    for key, value in table.items():
        values = value if isinstance(value, list) else [value]
        if not values:
            raise StudyError(f"{source.file}: grid.{key} is an empty list; leave it out or list alternatives")
        target = "budget" if key in BUDGETS else key
        items = rewritten.setdefault(target, [])
        for index, item in enumerate(values):
            origin = f"$.grid.{key}[{index}]" if isinstance(value, list) else f"$.grid.{key}"
            items.append(_item(source, key, item, f"$.grid.{target}[{len(items)}]", origin, typed))
    return dict(rewritten)


def _item(source: Source, key: str, value: Any, where: str, origin: str, typed: dict[str, str]) -> Any:
    typed[where] = origin
    if key in _NAMED and isinstance(value, str):
        typed[f"{where}.name"] = origin
        return {"name": value}
    if key in BUDGETS:
        name, amount = BUDGETS[key]
        if isinstance(value, dict):
            return {"name": name, **value}
        typed[f"{where}.{amount}"] = origin
        return {"name": name, amount: value}
    return _feedback(source, value, origin) if key == "feedback" else value


def _feedback(source: Source, value: Any, origin: str) -> Any:
    """True is `ErrorFeedback`, whose name may be left out; of others, such as EF21, there is the name alone."""
    if not isinstance(value, dict):
        return {} if value is True or value == "ErrorFeedback" else value
    settings = {key: setting for key, setting in value.items() if key != "name"}
    named = value.get("name", "ErrorFeedback")
    if named == "EF21" and settings:
        fact = f"EF21 has no settings, but {next(iter(settings))} is given - at {_place(source, origin)}"
        raise StudyError(f"{source.file}: {fact}; leave it out")
    return settings if named == "ErrorFeedback" else named


# ---------------------------------------------------------------- places


def _typed(where: str, typed: Mapping[str, str]) -> str:
    known = [prefix for prefix in typed if where == prefix or where.startswith((f"{prefix}.", f"{prefix}["))]
    longest = max(known, key=len, default="")
    return typed[longest] + where[len(longest) :] if longest else where


def _place(source: Source, where: str) -> str:
    text = _override_of(source, where)
    return where if text is None else f"{where} (--set {text})"


def _advice(source: Source, where: str) -> str:
    if _override_of(source, where) is not None:
        return "change that --set"
    if "[" in where or where == "$":
        return "change it in the file"
    return f"change it in the file or with --set {where[2:]}=VALUE"


def _override_of(source: Source, where: str) -> str | None:
    inside = (
        text for path, text in source.overrides.items() if where == path or where.startswith((f"{path}.", f"{path}["))
    )
    return next(inside, None)
