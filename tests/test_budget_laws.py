"""Joule budgets of messages over random models, devices and rules; `benchmarks/budget_laws.py` looks at many more.

A case that breaks a law is named by its number: ``check(case_of(number))`` makes it again.
"""

from collections import Counter
from dataclasses import replace

import pytest
from budget_cases import case_of, check, made
from hypothesis import example, given, settings
from hypothesis import strategies as st

from joulewise.ledger import MASK_TERMS, TERMS

pytestmark = pytest.mark.filterwarnings("ignore:the largest price is")


# Prices that are tiny beside the blocks they pay for once made a longer budget keep less.
@example(1751)
@example(2023)
@example(2460)
# Pages whose energy makes steps in what a message takes; int8 messages that grow by jumps; estimates far too high.
@example(12835)
@example(1155)
@example(3689)
@example(6292)
@example(96994)
@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_charged_energy_never_exceeds_the_budget_and_no_more_than_law_10_allows_is_left(seed):
    check(case_of(seed))


def test_the_cases_hold_every_charge_a_mask_can_make_and_keep_some_more_often_than_all_or_none():
    kept, terms, blocks = Counter(), Counter(), Counter()
    for case in map(case_of, range(150)):
        kept[check(case)] += 1
        charges = made(case, case.compressor).charges
        terms.update(charge.term for charge in charges if charge.energy)
        blocks.update(block.name for block in case.costs.blocks)
    assert kept["some"] > max(kept["all"], kept["none"])
    assert set(terms) >= set(MASK_TERMS)
    assert set(terms) <= set(TERMS)
    names = {"cache_lines", "flash_pages", "receiver_cache_lines", "receiver_flash_pages", "pages"}
    assert set(blocks) == names


def test_a_budget_that_blocks_use_up_keeps_fewer_than_the_prices_alone_would_buy():
    fewer = 0
    for case in map(case_of, range(120)):
        free = replace(case, costs=replace(case.costs, blocks=()))
        with_blocks, without = (made(each, each.compressor).selection.indices.size for each in (case, free))
        if not case.costs.blocks:
            assert with_blocks == without
        fewer += with_blocks < without
    assert fewer >= 12
