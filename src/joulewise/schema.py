"""What is wrong with a table that does not fit a record: place, fact and hint, in a reader's words."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

Table = dict[str, Any]
Shorthands = Mapping[str, Sequence[str]]


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    Args:
        where: path of the place, such as ``$.training.batch_size``.
        fact: what was expected there, and what came.
        hint: what may have been meant; empty when that cannot be told.
    """

    where: str
    fact: str
    hint: str = ""


def fault(error: msgspec.ValidationError, tables: Table, record: type, shorthands: Shorthands) -> Fault:
    """Explain why `tables` could not be converted to `record`.

    Args:
        error: what msgspec raised.
        tables: what was converted.
        record: to what.
        shorthands: keys that a user writes instead of a field's name.

    Example:
        >>> class Training(msgspec.Struct, forbid_unknown_fields=True):
        ...     batch_size: int = 32
        >>> try:
        ...     msgspec.convert({"batchsize": 1}, Training)
        ... except msgspec.ValidationError as error:
        ...     fault(error, {"batchsize": 1}, Training, {})
        Fault(where='$', fact='unknown key `batchsize`', hint='did you mean batch_size? ...')
    """
    found = re.fullmatch(r"(.*?)(?: - at `(?:key in )?(.*)`)?", str(error), re.DOTALL)
    message, where = (found[1], found[2] or "$") if found else (str(error), "$")
    steps = re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", where)
    place = _Place(tables, record, [key or index for key, index in steps], shorthands)
    return Fault(where, *_fact(message, place))


class _Place(msgspec.Struct, frozen=True):
    tables: Table
    record: type
    keys: Sequence[str]
    shorthands: Shorthands


def _fact(message: str, place: _Place) -> tuple[str, str]:
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        return f"unknown key `{found[1]}`", _unknown(found[1], place)
    if found := re.fullmatch(r"Object missing required field `(.*)`", message):
        return f"`{found[1]}` is missing", f"add {found[1]} = ..."
    if found := re.fullmatch(r"Invalid (?:enum )?value '?(.*?)'?", message):
        return f"invalid value '{found[1]}'", _meant(found[1], _choices(place), "expected one of")
    message, value = message.replace("`", ""), _lookup(place.tables, place.keys)
    if message.startswith("Expected") and value is not None:
        message = f"{message.partition(', got ')[0]}, got {json.dumps(value, default=str)}"
    return message, ""


def _unknown(key: str, place: _Place) -> str:
    nodes = _records(_nodes(place, place.keys))
    known = sorted({name for node in nodes for name in _names(node, place.shorthands)})
    parts = [part for node in nodes for part in node.fields]
    homes = [part.name for part in parts if _knows(part.type, key, place.shorthands)]
    if homes and not place.keys:
        return f"it belongs in {' or '.join(f'[{name}]' for name in homes)}"
    return _meant(key, known, "its keys are")


def _meant(word: str, known: Sequence[str], otherwise: str) -> str:
    lower = {name.casefold(): name for name in known}
    close = difflib.get_close_matches(word.casefold(), lower, n=1)
    listed = f"{otherwise}: {', '.join(known)}"
    return f"did you mean {lower[close[0]]}? ({listed})" if close else listed


def _choices(place: _Place) -> list[str]:
    literals = [node for node in _nodes(place, place.keys) if isinstance(node, inspect.LiteralType)]
    if literals:
        return [str(value) for node in literals for value in node.values]
    *outer, last, _tag = place.keys
    alternatives = [inner for node in _nodes(place, outer) for inner in _inner(node, last)]
    return [str(node.tag) for node in _records(alternatives) if node.tag]


# ---------------------------------------------------------------- types


def _nodes(place: _Place, keys: Sequence[str]) -> list[inspect.Type]:
    nodes = _flat(inspect.type_info(place.record))
    for depth, key in enumerate(keys):
        table = _lookup(place.tables, keys[:depth])
        nodes = [inner for node in _tagged(nodes, table) for inner in _inner(node, key)]
    return _tagged(nodes, _lookup(place.tables, keys))


def _flat(node: inspect.Type) -> list[inspect.Type]:
    if isinstance(node, inspect.Metadata):
        return _flat(node.type)
    if isinstance(node, inspect.UnionType):
        return [inner for part in node.types for inner in _flat(part)]
    return [node]


def _records(nodes: Sequence[inspect.Type]) -> list[inspect.StructType]:
    return [node for node in nodes if isinstance(node, inspect.StructType)]


def _tagged(nodes: list[inspect.Type], value: Any) -> list[inspect.Type]:
    name = value.get("name") if isinstance(value, dict) else None
    same: list[inspect.Type] = [node for node in _records(nodes) if node.tag and node.tag == name]
    return same or nodes


def _inner(node: inspect.Type, key: str) -> list[inspect.Type]:
    if isinstance(node, inspect.StructType):
        return [inner for part in node.fields if part.encode_name == key for inner in _flat(part.type)]
    if isinstance(node, inspect.VarTupleType | inspect.ListType):
        return _flat(node.item_type)
    return _flat(node.value_type) if isinstance(node, inspect.DictType) else []


def _names(node: inspect.StructType, shorthands: Shorthands) -> list[str]:
    names = [part.encode_name for part in node.fields]
    if node.tag:  # a record of a union is written out; a field of it may share its name with a shorthand
        return names
    return [name for field in names for name in shorthands.get(field, (field,))]


def _knows(node: inspect.Type, key: str, shorthands: Shorthands) -> bool:
    return any(key in _names(record, shorthands) for record in _records(_flat(node)))


def _lookup(node: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node
