"""A fleet's budget over a run: early, late or even, never more in total, and the same when a run goes on."""

import dataclasses
import math
from itertools import accumulate, pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fleet import said
from test_flower_allocation import fleet_arm, spent
from test_flower_resume import resumed_equals_never_stopped
from toy_federation import DEVICE, Watched, app, averaging, model, record

from joulewise import labels
from joulewise.allocations import of_round, over, rounds_like_the_next
from joulewise.courses import Falling, Rising
from joulewise.errors import RuleError, StudyError
from joulewise.fleet import Allocation, Books, EqualCount, EqualJoules, Known, OnePrice, book, hand_out
from joulewise.flower import Sparse, SparseGrid, Sparsify
from joulewise.flower.app import federate
from joulewise.flower.orders import parse
from joulewise.rules import CWMP, Density, Joules
from joulewise.study import expand, load

some = settings(max_examples=80, deadline=None)
KINDS = (Falling, Rising)
courses = st.builds(
    lambda kind, ratio, rounds: kind(ratio=ratio, rounds=rounds),
    st.sampled_from(KINDS),
    st.floats(1, 1e6, exclude_min=True),
    st.integers(1, 400),
)


def budgets_of(allocation, rounds):
    """What each round may spend; of a share, its density."""
    each = [of_round(allocation, number) for number in range(rounds)]
    return [one.share if getattr(one, "budget_j", None) is None else one.budget_j for one in each]


# ---------------------------------------------------------------- the sequence


@some
@given(courses, st.floats(1e-250, 1e90))
def test_all_rounds_together_have_what_even_rounds_would_have_and_never_more(course, budget):
    budgets = budgets_of(OnePrice(budget_j=budget, course=course), course.rounds)
    assert budget * course.rounds * (1 - 1e-12) <= math.fsum(budgets) <= budget * course.rounds
    assert all(each > 0 for each in budgets)


@some
@given(courses)
def test_the_ratio_is_that_of_the_first_and_the_last_round_and_each_step_is_the_same(course):
    parts = [course.part(number) for number in range(course.rounds)]
    falling = parts if isinstance(course, Falling) else parts[::-1]
    if course.rounds == 1:
        assert parts == [1.0]
        return
    assert falling[0] / falling[-1] == pytest.approx(course.ratio, rel=1e-9)
    step = course.ratio ** (-1 / (course.rounds - 1))
    assert [b / a for a, b in pairwise(falling)] == pytest.approx([step] * (len(parts) - 1))


@some
@given(courses, st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_budgets_of_two_courses_are_nested_like_the_budgets_of_their_even_rounds(course, one, other):
    low, high = (budgets_of(EqualJoules(budget_j=each, course=course), course.rounds) for each in sorted((one, other)))
    assert all(a <= b for a, b in zip(low, high, strict=True))


@some
@given(st.floats(1.1, 1e6), st.integers(2, 400))
def test_falling_is_ahead_of_even_at_every_round_and_rising_behind(ratio, rounds):
    falling, rising = (
        list(accumulate(kind(ratio=ratio, rounds=rounds).part(number) for number in range(rounds))) for kind in KINDS
    )
    for number in range(rounds - 1):
        assert rising[number] < number + 1 < falling[number]


def test_a_course_by_hand():
    assert budgets_of(EqualCount(0.1, Falling(ratio=4.0, rounds=3)), 3) == pytest.approx([1.2 / 7, 0.6 / 7, 0.3 / 7])
    assert budgets_of(EqualCount(0.1, Rising(ratio=4.0, rounds=3)), 3) == pytest.approx([0.3 / 7, 0.6 / 7, 1.2 / 7])
    assert of_round(EqualCount(0.1), 99) == EqualCount(0.1)


def test_what_the_next_round_may_spend_follows_the_course():
    course = Falling(ratio=4.0, rounds=3)
    usual = OnePrice(budget_j=7.0, control="ascent", course=course)
    assert [rounds_like_the_next(usual, number) for number in (1, 2)] == pytest.approx([2.0, 6.0])
    assert rounds_like_the_next(usual, 3) == pytest.approx(3.0)
    assert rounds_like_the_next(OnePrice(budget_j=7.0), 5) == 5
    # One that wants exactly what the next round has leaves the price where it is.
    known = {4: Known(100, dense_j=50.0, wanted_j=6.0 * (1 - 2.0**-43))}
    books = Books(price=2.0)
    orders, books = hand_out(usual, books, known)
    assert orders[4].budget.budget == pytest.approx(12.0)
    after = book(usual, books, orders, {4: 12.0}, known)
    assert after.price == pytest.approx(2.0, rel=1e-9)
    assert after.allowed_j == pytest.approx(12.0)


# ---------------------------------------------------------------- histories


def allocations(course):
    return (
        EqualJoules(budget_j=7.0, course=course),
        OnePrice(budget_j=7.0, least_share=0.3, course=course),
        OnePrice(budget_j=7.0, control="ascent", course=course),
        OnePrice(budget_j=7.0, control="ascent", step=1.0, least_share=1.0, course=course),
    )


@some
@given(
    st.builds(lambda kind, ratio, rounds: kind(ratio, rounds), st.sampled_from(KINDS), st.floats(1.5, 1e4),
              st.integers(1, 8)),
    st.integers(0, 3), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_caps_never_exceed_the_budgets_so_far_whatever_clients_say(course, which, seed):
    allocation, rng = allocations(course)[which], np.random.default_rng(seed)
    budgets = budgets_of(allocation, course.rounds)
    books, total = Books(), 0.0
    for number in range(course.rounds):
        known = {10 * k: said(rng, 1, number > 0) for k in range(int(rng.integers(1, 6)))}
        orders, books = hand_out(allocation, books, known)
        caps = {client: order.budget.budget for client, order in orders.items() if isinstance(order.budget, Joules)}
        ascends = getattr(allocation, "control", "") == "ascent"
        allowed = math.fsum(budgets[: number + 1]) - total if ascends else budgets[number]
        assert math.fsum(caps.values()) <= allowed * (1 + 1e-12)
        spending = {client: float(rng.uniform(0, 1)) * caps[client] for client in caps if known[client]}
        total += math.fsum(spending.get(client, cap) for client, cap in caps.items())
        books = book(allocation, books, orders, spending, {k: each for k, each in known.items() if each})
        assert books.allowed_j == pytest.approx(math.fsum(budgets[: number + 1]))
    assert total <= 7.0 * course.rounds
    with pytest.raises(RuleError, match=f"round {course.rounds + 1} has no budget; give it as many rounds"):
        hand_out(allocation, books, known)


def test_counts_and_shares_follow_the_course_for_clients_that_are_not_known_too():
    course = Rising(ratio=9.0, rounds=2)
    for allocation in (EqualCount(0.1, course), EqualJoules(share=0.1, course=course)):
        books, known = Books(), {1: None}
        for expected in (0.02, 0.18):
            orders, books = hand_out(allocation, books, known)
            assert orders[1].budget.fraction == pytest.approx(expected)
            books = book(allocation, books, orders, {}, {})


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Falling(ratio=1.0), r"Falling\(ratio\) must be above 1 .* is 1.0; leave the course out for even"),
        (lambda: Rising(ratio=math.nan), r"Rising\(ratio\)"),
        (lambda: Rising(ratio=1e7), r"at most 1e\+06"),
        (lambda: Falling(rounds=0), r"Falling\(rounds\) must be from 1 to 1000000000, but is 0"),
        (lambda: Falling().part(0), r"does not know how many rounds the run has; say so, Falling\(ratio=10, rounds="),
        (lambda: Falling(rounds=3).part(-1), "round 0 has no budget"),
        (lambda: over(EqualCount(0.1, Falling(rounds=3)), 4), "over 3 rounds, but the run has 4; leave its rounds out"),
        (lambda: EqualCount(0.6, Falling(ratio=4.0, rounds=3)),
         r"EqualCount\(share\) is 0.6, of which the course gives round 1 1.029, more than 1; lower it, or the ratio"),
        (lambda: over(EqualCount(0.6, Rising(ratio=4.0)), 3), r"EqualCount\(share\) .* round 3 1.029"),
        (lambda: OnePrice(share=0.6, course=Falling(ratio=4.0, rounds=3)), r"OnePrice\(share\)"),
        (lambda: EqualJoules(1e100, course=Falling(ratio=4.0, rounds=3)), r"EqualJoules\(budget_j\) is 1e\+100"),
        (lambda: SparseGrid(Watched(app(), 1), allocation=EqualCount(0.1, Falling())), "does not know how many rounds"),
    ],
)  # fmt: skip
def test_a_course_that_cannot_be_is_refused_before_the_run(make, message):
    with pytest.raises(RuleError, match=message):
        make()


def test_courses_are_read_by_name():
    for kind in KINDS:
        allocation = OnePrice(share=0.01, course=kind(ratio=20.0))
        assert msgspec.convert(msgspec.to_builtins(allocation), Allocation) == allocation
    table = {"name": "EqualCount", "share": 0.01, "course": {"name": "Rising"}}
    assert msgspec.convert(table, Allocation) == EqualCount(0.01, Rising(ratio=10.0))


STUDY = """
name = "course"
rounds = 4
seeds = [0]
data = { name = "digits", clients = 2, partition = "IID" }
model = "mlp"
fleet = { devices = { "synthetic-link-1" = 1, "synthetic-link-10" = 1 } }
[strategy]
allocation = { name = "EqualCount", share = SHARE, course = { name = "Falling", ratio = 4 ROUNDS } }
[grid]
rule = ["CWMP"]
density = [0.01]
"""


def test_a_study_knows_its_rounds(tmp_path):
    def arm_of(share="0.1", rounds=""):
        text = STUDY.replace("SHARE", share).replace("ROUNDS", rounds)
        (tmp_path / "course.toml").write_text(text, encoding="utf-8")
        (only,) = expand(load(tmp_path / "course.toml"))
        return only

    assert arm_of().strategy.allocation_over(4) == EqualCount(0.1, Falling(4.0, 4))
    assert "course=Falling(ratio=4.0)" in labels.settings(arm_of())["strategy"]
    assert "allocation=EqualCount(share=0.1, course=Falling(ratio=4.0, rounds=6))" in labels.text(
        arm_of(rounds=", rounds = 6").strategy
    )
    with pytest.raises(StudyError, match=r"strategy.allocation: Falling is a course over 3 rounds, but the run has 4"):
        arm_of(rounds=", rounds = 3")
    with pytest.raises(StudyError, match=r"strategy.allocation: EqualCount\(share\) is 0.7, of which the course"):
        arm_of(share="0.7")


# ---------------------------------------------------------------- federations


@pytest.mark.parametrize(
    "allocation",
    [
        EqualCount(0.05, Rising(ratio=4.0)),
        OnePrice(share=0.05, course=Falling(ratio=4.0)),
        OnePrice(share=0.05, control="ascent", course=Rising(ratio=4.0)),
    ],
    ids=str,
)
def test_a_study_spends_what_its_course_says_and_goes_on_with_the_same_bits(allocation, tmp_path):
    which = fleet_arm(allocation)
    outcomes = list(federate(which, 4))
    n = outcomes[0].clients[0].parameters
    budgets = [each * n * 202 for each in budgets_of(over(allocation, 6), 6)]
    masks = [math.fsum(spent(client) for client in outcome.clients) for outcome in outcomes]
    if isinstance(allocation, EqualCount):
        kept = [sum(outcome.clients[0].kept_by_tensor) for outcome in outcomes]
        assert kept == [int(each * n) for each in budgets_of(over(allocation, 6), 6)]
    # The first round is by density, for nobody's prices are known.
    assert math.fsum(masks[1:]) <= math.fsum(budgets) - masks[0]
    assert math.fsum(masks) >= 0.9 * math.fsum(budgets)
    late = 4 if getattr(allocation, "control", "") == "ascent" else 2  # by when the price is found
    assert masks[late:] == pytest.approx(budgets[late:], rel=0.15)
    for after in (1, 4):
        resumed_equals_never_stopped(which, tmp_path, after)


def test_one_checkpoint_of_another_place_in_the_course_is_another_run():
    outcomes = list(federate(fleet_arm(EqualCount(0.05, Rising(ratio=4.0)), rounds=3), 4))
    (last,) = federate(fleet_arm(EqualCount(0.05, Rising(ratio=4.0)), rounds=3), 4, resume=outcomes[1].checkpoint)
    assert sum(last.clients[0].kept_by_tensor) > 1.8 * sum(outcomes[1].clients[0].kept_by_tensor)


def test_a_strategy_tells_the_course_how_many_rounds_it_starts():
    inner = Watched(app(Sparsify(DEVICE, CWMP(), Density(0.1))), 2)
    Sparse(averaging(), allocation=EqualCount(0.1, Rising(ratio=4.0))).start(inner, record(model()), 3)
    asked = [message for each in inner.requests for message in each if "train" in message.metadata.message_type]
    shares = [
        parse(config["joulewise.order"]).budget.fraction
        for message in asked
        for config in message.content.config_records.values()
        if "joulewise.order" in config
    ]
    assert shares == pytest.approx(np.repeat([0.3 / 7, 0.6 / 7, 1.2 / 7], 2))
    with pytest.raises(RuleError, match="over 2 rounds, but the run has 3"):
        Sparse(averaging(), allocation=EqualCount(0.1, Rising(rounds=2))).start(inner, record(model()), 3)


def test_rounds_without_anybody_take_nothing_of_the_course():
    which = fleet_arm(EqualCount(0.05, Falling(ratio=4.0)), rounds=3)
    away = dataclasses.replace(which.supply, available=((1.0,) * 4, (0.0,) * 4, (1.0,) * 4))
    first, _, last = federate(dataclasses.replace(which, supply=away), 4)
    shares = budgets_of(EqualCount(0.05, Falling(4.0, 3)), 3)
    for outcome, share in ((first, shares[0]), (last, shares[1])):
        assert sum(outcome.clients[0].kept_by_tensor) == int(share * outcome.clients[0].parameters)
