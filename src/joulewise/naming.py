"""Short names of a study's arms: what all of them share is said once, and left out of each name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from joulewise.results import Setting

LINES = ("rule", "allocation", "schedule")
"""What tells the lines of one chart apart; arms that differ in something else are in different charts.

Where no arms differ in these, the setting with most values joins them: a chart of one line compares nothing.
"""

_FIRST = frozenset({"rule", "budget", "amount"})
"""Settings that begin a name: rule and budget, whose text says its kind and amount."""

_WORD = re.compile(r"[^\s(]+(?:\([^)]*\))?")
_FILE = re.compile(r"(?:[^\s/]*/)*([^\s/]+)\.toml$")
"""A device's profile in a file of the user's own: its name says enough."""


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """An arm as the rows have it.

    Args:
        name: its label, the key of its rows.
        rule: name of its rule.
        budget: as text; empty for none.
        settings: what sets it apart, see `joulewise.labels.settings`.
    """

    name: str
    rule: str
    budget: str
    settings: Mapping[str, Setting]


class Naming(msgspec.Struct, frozen=True, kw_only=True):
    """What an arm is called for a reader.

    Args:
        label: short, and unique in its study.
        series: what tells it from the other lines of a chart: its rule, with its allocation and schedule.
        group: everything else in which arms differ; arms of one group are lines of one chart.
    """

    label: str
    series: str
    group: tuple[str, ...] = ()


def names(arms: Sequence[Labelled]) -> tuple[tuple[Naming, ...], tuple[str, ...]]:
    """Short names of the arms of a study, and what all of them share.

    A name that was not made from the settings, such as one that a user chose, stays as it is; so do all, where they
    would no longer differ.

    Args:
        arms: of one study.

    Returns:
        A record for each arm, and the shared parts, each as it stands in the names.

    Example:
        >>> arms = [
        ...     Labelled(name=f"{rule} density=0.1 devices=5 near, 5 {far}", rule=rule, budget="density=0.1",
        ...              settings={"rule": rule, "devices": f"5 near, 5 {far}"})
        ...     for rule in ("TopK", "CWMP") for far in ("far", "farther")]
        >>> found, shared = names(arms)
        >>> [each.label for each in found], shared
        (['TopK 5 far', 'TopK 5 farther', 'CWMP 5 far', 'CWMP 5 farther'], ('density=0.1', '5 near'))
        >>> found[0].series, found[0].group
        ('TopK', ('5 far',))
    """
    split = [_split(arm) for arm in arms]
    made = [parts for parts in split if parts is not None]
    shared = _shared(made)
    lines = _lines(made, shared)
    found = tuple(
        _as_it_is(arm) if parts is None else _short(parts, shared, lines)
        for arm, parts in zip(arms, split, strict=True)
    )
    if len({each.label for each in found}) < len(found):
        return tuple(map(_as_it_is, arms)), ()
    return found, tuple(part for _, part in shared)


def _as_it_is(arm: Labelled) -> Naming:
    rest = arm.name.removeprefix(arm.rule).strip()
    return Naming(label=arm.name, series=arm.rule, group=(rest,) if rest else ())


Parts = list[tuple[str, str]]
"""Parts of a name in its order, each with the setting that it says: ``("devices", "5 near")``."""


def _split(arm: Labelled) -> Parts | None:
    """The parts of a name; None where the settings do not tell how it was made."""
    rule = str(arm.settings.get("rule", arm.rule))
    left = f"{arm.name} ".removeprefix(f"{rule} ")
    if left == f"{arm.name} ":
        return None
    parts = [("rule", rule)]
    tokens = {"budget": arm.budget}
    tokens |= {key: _token(key, value) for key, value in arm.settings.items() if key not in _FIRST}
    for key, token in tokens.items():
        if token and left.startswith(f"{token} "):
            left = left.removeprefix(f"{token} ")
            parts += _pieces(key, arm.settings.get(key), token)
    return None if left.strip() else parts


def _token(key: str, value: Setting) -> str:
    if isinstance(value, bool):
        return key if value else f"no {key}"
    return f"{key}={value}"


def _pieces(key: str, value: Setting, token: str) -> Parts:
    """A setting that says several things, one by one: devices by device, a strategy by its options."""
    if key == "devices":
        return [(key, _FILE.sub(r"\1", piece)) for piece in str(value).split(", ")]
    if key != "strategy":
        return [(key, token)]
    parts: Parts = []
    for word in _WORD.findall(str(value)):
        name, _, rest = word.partition("=")
        parts += _allocated(rest) if name == "allocation" else [(key, word)]
    return parts


def _allocated(text: str) -> Parts:
    name, _, inside = text.partition("(")
    arguments = inside.removesuffix(")").split(", ") if inside else []
    return [("allocation", part) for part in (name, *arguments)]


def _shared(every: Sequence[Parts]) -> tuple[tuple[str, str], ...]:
    """What all names say, but for the rule; an arm without a budget, such as Dense, says nothing against one."""
    if not every:
        return ()
    counts = Counter(part for parts in every for part in dict.fromkeys(parts))
    budgeted = sum(any(key == "budget" for key, _ in parts) for parts in every)
    needed = {"budget": budgeted}
    return tuple(
        part for part, count in counts.items() if part[0] != "rule" and count == needed.get(part[0], len(every))
    )


def _lines(every: Sequence[Parts], shared: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The settings that tell lines apart: `LINES`, or one more where the arms differ in none of them."""
    own = dict.fromkeys(part for parts in every for part in parts if part not in shared)
    counts = Counter(key for key, _ in own)
    others = {key: count for key, count in counts.items() if key not in (*LINES, "budget")}
    if counts["rule"] > 1 or counts["allocation"] or counts["schedule"] or not others:
        return LINES
    return (*LINES, max(others, key=lambda key: others[key]))


def _short(parts: Parts, shared: Sequence[tuple[str, str]], lines: Sequence[str]) -> Naming:
    own = [part for part in parts if part not in shared]
    line = [text for key, text in own if key in lines]
    group = tuple(text for key, text in own if key not in lines)
    return Naming(label=" ".join((*line, *group)), series=" ".join(line), group=group)
