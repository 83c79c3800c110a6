"""Four nodes whose links differ, with one budget, in this process."""

import math

import numpy as np
from flwr.app import MetricRecord
from toy_federation import Watched, app, averaging, model, record

from joulewise import rowfile
from joulewise.charges import MASK_TERMS, total
from joulewise.compress import ErrorFeedback
from joulewise.flower import EqualJoules, OnePrice, Rows, Sparse, Sparsify
from joulewise.flower.notes import ORDER
from joulewise.flower.orders import parse
from joulewise.layout import Layout
from joulewise.rules import CWMP, Density, Joules

LINKS = ("synthetic-link-1", "synthetic-link-10", "synthetic-link-100", "synthetic-link-1")
MODEL = model(**{"linear.weight": np.zeros((30, 40), np.float32)})
PARAMETERS = Layout.of(MODEL).n
DENSE = [PARAMETERS * float(name.rpartition("-")[2]) for name in LINKS]
BUDGET = 4000.0
ALLOCATIONS = (
    OnePrice(budget_j=BUDGET),
    OnePrice(budget_j=BUDGET, control="ascent"),
    EqualJoules(budget_j=BUDGET),
    OnePrice(share=0.03),
    OnePrice(share=0.03, control="ascent"),
)


class Fleet:
    """Four nodes with their links; `mods` stand around `Sparsify`, and `spoil` changes what comes back."""

    def __init__(self, *mods, spoil=None, devices=LINKS, rule=CWMP(), sparsify=None, examples=None, nodes=4):  # noqa: B008
        own = Sparsify(devices, rule, Density(0.1), feedback=ErrorFeedback()) if sparsify is None else sparsify
        made = app(*mods, own, examples=examples or (lambda partition: 8 + partition))
        self.grid = Watched(made, nodes, spoil=spoil, raising=False)

    def play(self, folder, allocation, rounds=4, strategy=None, grid=None, **options):
        """Rows of a run."""
        rows = Rows(folder, arm=options.pop("arm", None))
        strategy = averaging() if strategy is None else strategy
        Sparse(strategy, allocation=allocation, rows=rows, **options).start(
            grid or self.grid, record(MODEL), rounds, evaluate_fn=lambda *_: MetricRecord({"accuracy": 0.5})
        )
        return rowfile.read(folder)

    def orders(self):
        """By round, what the server wrote to each node."""
        found = []
        for requests in filter(None, self.grid.requests):
            notes = {r.metadata.dst_node_id: c for r in requests for c in r.content.config_records.values()}
            found.append({node: parse(note[ORDER]) for node, note in notes.items() if ORDER in note})
        return found

    def caps(self):
        """By round, the energies that it allowed."""
        return [
            [order.budget.budget for order in each.values() if isinstance(order.budget, Joules)]
            for each in self.orders()
        ]


def spent(client):
    return total(charge for charge in client.charges if charge.term in MASK_TERMS)


def masks(row):
    return math.fsum(spent(client) for client in row.clients)


def held(rows, fleet, allocation):
    """Whether every round, or with ascent all of them so far, is within the budget."""
    budget = getattr(allocation, "budget_j", None) or allocation.share * sum(DENSE)
    carried = getattr(allocation, "control", "") == "ascent"
    totals = np.array([masks(row) for row in rows])
    within = (np.cumsum(totals) / np.arange(1, len(rows) + 1)) if carried else totals[1:]
    return (within <= budget * (1 + 1e-9)).all() and (carried or all(math.fsum(c) <= budget for c in fleet.caps()))
