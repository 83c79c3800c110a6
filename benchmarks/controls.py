"""How well each control of one price holds a fleet's budget, what it makes of it, and what it costs in messages.

``python benchmarks/controls.py [--control NAME] [--rounds 12] [--seeds 3] [--share 0.01] [--contrast 100]``

Ten clients of the digits, half of them with links at 1 and half at the contrast for each coordinate; Projection with
error feedback. Per control, over all seeds: energy of the masks over the budget in percent, in the first round, least
and most in a round after it, and in all rounds together; accuracy after the last round; per client and round, messages,
bytes up and bytes down. Exit code 1 where `asked` is above the budget in any round.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys

import msgspec

from joulewise.charges import MASK_TERMS, total
from joulewise.compress import Compressor, ErrorFeedback
from joulewise.fleet import OnePrice
from joulewise.flower.app import Arm, RoundOutcome, federate
from joulewise.flower.choice import StrategyChoice
from joulewise.learning import MLP, Digits, Dirichlet, Training
from joulewise.results import ClientResult
from joulewise.rules import Density, Projection

CLIENTS = 10
CONTROLS = ("curves", "asked", "ascent")


def arm(control: str, given: argparse.Namespace) -> Arm:
    half = CLIENTS // 2
    choice = StrategyChoice("FedAvg", {})
    return Arm(
        name=control,
        data=Digits(clients=CLIENTS, partition=Dirichlet(alpha=0.3)),
        model=MLP(),
        training=Training(batch_size=16, learning_rate=0.1),
        strategy=msgspec.structs.replace(choice, allocation=OnePrice(share=given.share, control=control)),
        devices=("synthetic-link-1",) * half + (f"synthetic-link-{given.contrast}",) * half,
        compressor=Compressor(Projection(), Density(given.share), feedback=ErrorFeedback()),
        rounds=given.rounds,
    )


def spent(client: ClientResult) -> float:
    return total(charge for charge in client.charges if charge.term in MASK_TERMS)


def shares(outcomes: list[RoundOutcome], given: argparse.Namespace) -> list[float]:
    """Energy of each round's masks over its budget."""
    parameters = outcomes[0].clients[0].parameters or 0
    budget = given.share * parameters * (CLIENTS // 2) * (1 + given.contrast)
    return [math.fsum(spent(client) for client in each.clients) / budget for each in outcomes]


def line(control: str, runs: list[list[RoundOutcome]], given: argparse.Namespace) -> tuple[str, float]:
    """A row of the table, and the most that a round has spent."""
    used = [shares(outcomes, given) for outcomes in runs]
    later = [share for each in used for share in each[1:]]
    energies = [statistics.mean(each[0] for each in used), min(later), max(later)]
    energies.append(statistics.mean(share for each in used for share in each))
    clients = [client for outcomes in runs for each in outcomes for client in each.clients]
    accuracy = statistics.mean(outcomes[-1].server.accuracy for outcomes in runs)
    messages = 4 if control == "asked" else 2
    up, down = (statistics.mean(getattr(client, name) for client in clients) for name in ("bytes_up", "bytes_down"))
    cells = [*(f"{100 * each:.2f}" for each in energies), f"{accuracy:.3f}", str(messages), f"{up:.0f}", f"{down:.0f}"]
    return f"| {control} | {' | '.join(cells)} |", max(share for each in used for share in each)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--control", choices=CONTROLS)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--share", type=float, default=0.01)
    parser.add_argument("--contrast", type=int, choices=(10, 100, 1000), default=100)
    given = parser.parse_args()
    print("| control | first | least | most | in all | accuracy | messages | bytes up | bytes down |")
    print("|---" * 9 + "|")
    above = False
    for control in CONTROLS if given.control is None else (given.control,):
        runs = [list(federate(arm(control, given), seed)) for seed in range(given.seeds)]
        row, most = line(control, runs, given)
        above = above or (control == "asked" and most > 1 + 1e-9)
        print(row, flush=True)
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
