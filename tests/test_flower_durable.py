"""A real deployment loses a SuperNode and a client's process in mid-round, and no update with them."""

import json
import sys
import time
from pathlib import Path

import deployment
import numpy as np
import pytest

from joulewise.codec import decode
from joulewise.compress import settle
from joulewise.flower.state import unpacked_state
from joulewise.layout import Layout
from joulewise.statefile import read

APP = Path(__file__).parent / "durable_app"
sys.path.insert(0, str(APP))

from durable.sums import change, zeros  # noqa: E402 (the app's own numbers)

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.skipif(deployment.missing() is not None, reason=str(deployment.missing())),
]

LAYOUT = Layout.of(zeros())
HANGS, DIES, SOUND = 0, 1, 2
ROUNDS = (1, 2, 3)


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """The notes of a run in which the SuperNode of one client and the process of another are killed in round 2."""
    folder = tmp_path_factory.mktemp("durable")
    notes = folder / "notes"
    notes.mkdir()
    began = time.monotonic()
    with deployment.deployment(folder) as box:
        deployment.start_app(box, APP, "run", f'folder="{notes}"')
        try:
            deployment.wait_until((notes / "hangs").exists, "the client that hangs to train in round 2")
            box.kill(f"supernode-{HANGS}")
            # Before Flower has missed it, a SuperNode that comes back is refused, and ends.
            deployment.wait_until((notes / "round-2.json").exists, "round 2 to end without the two")
            deployment.start_supernode(box, HANGS)
            box.finish("run")
        except (TimeoutError, RuntimeError):
            print(box.logs())  # noqa: T201 (pytest shows it beside the error)
            raise
    print(f"{time.monotonic() - began:.0f} s")  # noqa: T201
    assert box.alive() == []
    return folder


def stored(folder):
    """Payload and node by round and partition: what joulewise has stored, and sent unless its process died."""
    found = {}
    for path in (folder / "notes").glob("stored-*.payload"):
        number, partition, node = path.stem.removeprefix("stored-").split("-")
        found[int(number), int(partition)] = (node, path.read_bytes())
    return found


def note(folder, number):
    return json.loads((folder / "notes" / f"round-{number}.json").read_text())


def nodes(folder):
    return {partition: node for (_, partition), (node, _) in stored(folder).items()}


def total(arrays):
    return sum(arrays, np.zeros(LAYOUT.n, np.float32))


def test_the_two_broke_down_in_round_2_as_told_and_were_back_in_round_3(broken):
    by_partition = nodes(broken)
    used = {
        number: {p for p, node in by_partition.items() if node in note(broken, number)["used"]} for number in ROUNDS
    }
    assert used == {1: {HANGS, DIES, SOUND}, 2: {SOUND}, 3: {HANGS, DIES, SOUND}}
    assert stored(broken).keys() == {(n, p) for n in ROUNDS for p in (HANGS, DIES, SOUND)} - {(2, HANGS)}
    errors = " ".join(note(broken, 2)["errors"])
    assert "Node Unavailable" in errors
    assert "ClientApp stopped responding" in errors


@pytest.mark.parametrize("partition", [HANGS, DIES, SOUND])
def test_what_was_applied_and_what_waits_are_all_updates_of_a_client(broken, partition):
    sent = {number: payload for (number, who), (_, payload) in stored(broken).items() if who == partition}
    node = nodes(broken)[partition]
    applied = [decode(sent[number], LAYOUT).dense() for number in ROUNDS if node in note(broken, number)["used"]]
    updates = [LAYOUT.flatten(change(number, partition)) for number in sent]
    (path,) = (broken / "state").glob(f"node-{node}-run-*.npz")
    accepted = json.loads((broken / "notes/accepted.json").read_text())[node]
    state, _ = settle(unpacked_state(read(path)), accepted, LAYOUT)  # Pending is applied, or returns to the residual.
    assert np.array_equal(total(applied) + state.residual, total(updates))
    assert 0 < np.count_nonzero(total(applied)) < LAYOUT.n


def test_the_payload_that_never_left_was_sent_again_by_and_by(broken):
    lost, later = (decode(stored(broken)[number, DIES][1], LAYOUT).dense() for number in (2, 3))
    assert lost.any()
    # Its coordinates are the largest of what waits, so most of them go out with the next reply.
    assert np.count_nonzero(later[lost != 0]) > np.count_nonzero(lost) / 2


def test_the_model_is_the_mean_of_the_payloads_that_were_used(broken):
    model = LAYOUT.flatten(zeros())
    for number in ROUNDS:
        used = [
            payload
            for (n, _), (node, payload) in stored(broken).items()
            if n == number and node in note(broken, number)["used"]
        ]
        model = model + total(decode(payload, LAYOUT).dense() for payload in used) / len(used)
        with np.load(broken / "notes" / f"model-{number}.npz") as came_out:
            assert np.abs(LAYOUT.flatten(dict(came_out)) - model).max() <= number * 2.0**-11 + 1e-6
