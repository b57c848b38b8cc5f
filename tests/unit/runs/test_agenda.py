"""Which unit is next: alone in order, in company by looks and claims, and nobody waits for what is gone."""

import pytest

from assay.runs.agenda import Agenda, Claims, Give, Hold, Look, Over, Pages, Pause

PATHS = [f"parts/a-{start}-{start + 20}.parquet" for start in range(0, 2400, 20)]


def paged(num_units=120, page_units=50):
    """The pages of a run of one source, whose units a listing shows in another order."""
    return Pages(PATHS[:num_units], page_units)


def flags_of(pages, page, published):
    """What a listing of the page says where these units are published."""
    return pages.flags(page, sorted(PATHS[unit] for unit in published))


def take(agenda, pages, published=(), claims=(), others=1):
    """The next unit with its block, looks answered; or the step that gives none."""
    held = None
    while True:
        step = agenda.step()
        match step:
            case Look(page=page):
                agenda.saw_claims(Claims.of(claims), num_others=others, store_now=0.0)
                agenda.saw_page(page, flags_of(pages, page, published))
            case Hold():
                held = step
            case Give(unit=unit):
                return unit, held
            case _:
                return step, held


def test_pages_are_those_of_a_listing():
    """Every unit is on one page, pages are in the order of paths, and their bounds hold just their units."""
    pages = paged()
    assert sorted(pages.order) == list(range(120))
    assert [PATHS[unit] for unit in pages.order] == sorted(PATHS)
    assert pages.num_pages == 3
    for page in range(pages.num_pages):
        after, until = pages.bounds(page)
        within = [
            path for path in PATHS if (after is None or path > after) and (until is None or path <= until)
        ]
        assert sorted(within) == [PATHS[unit] for unit in pages.units_of(page)]
        assert {pages.page_of(unit) for unit in pages.units_of(page)} == {page}


def test_flags_are_of_parts_alone():
    """A listing with strays and gaps says of each unit whether its part is there."""
    pages = paged(5, 10)
    listed = ["parts/a-0-2.parquet", PATHS[0], PATHS[3], "parts/zz.parquet"]
    assert [pages.order[k] for k, flag in enumerate(pages.flags(0, sorted(listed))) if flag] == [0, 3]


def test_alone_in_order():
    """A driver that is alone does its units in order, and neither looks nor claims."""
    agenda = Agenda(paged(4), range(4), in_company=False)
    assert [agenda.step() for _ in range(5)] == [Hold(0, 0), Give(0), Give(1), Give(2), Give(3)]
    assert agenda.step() == Over()
    agenda.put_back(2)
    assert [agenda.step(), agenda.step()] == [Give(2), Over()]


def test_what_was_published_is_passed_over():
    """What a listing shows is not given, whether it was held already or not."""
    pages = paged(4)
    agenda = Agenda(pages, range(4), in_company=False)
    assert list(agenda.saw_page(0, flags_of(pages, 0, [0, 2]))) == [0, 2]
    assert take(agenda, pages)[0] == 1
    assert list(agenda.saw_page(0, flags_of(pages, 0, [0, 2, 3]))) == [3]
    assert take(agenda, pages)[0] == Over()


def test_company_is_noticed():
    """Once another is seen, what was only held is let go, and each unit is claimed before it is done."""
    pages = paged(40)
    agenda = Agenda(pages, range(40), in_company=False)
    assert take(agenda, pages)[0] == 0
    agenda.saw_claims(Claims.of([]), num_others=1, store_now=0.0)
    unit, held = take(agenda, pages)
    assert (unit, held) == (1, Hold(1, 3))


def test_the_share_comes_first_in_blocks():
    """In company the own share is claimed from its front, in blocks that shrink to one unit."""
    pages = paged(40)
    agenda = Agenda(pages, range(10, 30), in_company=True, num_workers=2)
    blocks, done = [], []
    while len(done) < 20:
        unit, held = take(agenda, pages, published=done)
        if held is not None:
            blocks.append(held.stop - held.start)
        agenda.finished(unit, 1.0)
        done.append(unit)
    assert done == list(range(10, 30))
    assert blocks[0] == 4  # two units for each worker, before it is known how long they take
    assert blocks[-1] == 1


def test_a_block_is_ten_minutes_at_most():
    """A slow worker claims less than a quarter of its share at once."""
    pages = paged(100, 200)
    agenda = Agenda(pages, range(100), in_company=True)
    take(agenda, pages)
    agenda.finished(0, 240.0)
    take(agenda, pages)
    _, held = take(agenda, pages, published=[0, 1])
    assert held == Hold(2, 4)


def test_a_helper_leaves_claims_alone():
    """Neither published nor claimed units are taken, of any page."""
    pages = paged()
    claims = [(0, 60, 0.0)]
    published = range(70, 120)
    agenda = Agenda(pages, (), in_company=True)
    taken = set()
    while True:
        unit, _ = take(agenda, pages, published=published, claims=claims)
        if not isinstance(unit, int):
            break
        taken.add(unit)
    assert taken == set(range(60, 70))
    assert isinstance(unit, Pause)


def test_helpers_do_not_walk_the_same_way():
    """Two helpers of one run begin with different units."""
    pages = paged()
    firsts = {take(Agenda(pages, (), in_company=True, seed=seed), pages)[0] for seed in range(8)}
    assert len(firsts) > 4


def test_a_late_claim_is_taken_last():
    """What should have been done by now is taken where nothing else is left, by one; what should long ago, any time."""
    pages = paged(3)

    def helper():
        agenda = Agenda(pages, (), in_company=True)
        agenda.unit_seconds = 10.0
        return agenda

    in_time, late, overdue = (1, 2, -14.0), (1, 2, -16.0), (1, 2, -400.0)
    assert isinstance(take(helper(), pages, [0, 2], [in_time])[0], Pause)
    assert take(helper(), pages, [0, 2], [late])[0] == 1
    assert isinstance(take(helper(), pages, [0, 2], [late, (1, 2, -1.0)])[0], Pause)
    agenda = helper()
    assert take(agenda, pages, [0], [late])[0] == 2, "what is free comes first"
    agenda.finished(2, 10.0)
    assert take(agenda, pages, [0, 2], [late])[0] == 1
    agenda.finished(1, 10.0)
    assert take(agenda, pages, [0, 2])[0] == Over()
    assert {take(Agenda(pages, (), in_company=True, seed=k), pages, [0], [overdue])[0] for k in range(8)} == {
        1,
        2,
    }


def next_page(agenda):
    """The page that is looked at next."""
    step = agenda.step()
    assert isinstance(step, Look)
    return step.page


def test_a_helper_looks_where_work_is():
    """Where a unit was free it looks again first; else mostly where others have just claimed something."""
    pages = Pages([f"{unit:03}" for unit in range(600)], 10)
    agenda = Agenda(pages, (), in_company=True, seed=4)
    unit, held = take(agenda, pages)
    while agenda.held:
        agenda.step()
    assert next_page(agenda) == pages.page_of(unit) == pages.page_of(held.start)
    firsts = []
    for seed in range(60):
        agenda = Agenda(pages, (), in_company=True, seed=seed)
        agenda.saw_claims(Claims.of([(122, 124, 0.0), (300, 320, 0.0)]), num_others=5, store_now=0.0)
        firsts.append(next_page(agenda))
    guided = sum(page in {12, 32} for page in firsts)
    assert 35 <= guided < 60, "and a few at any page, for what nobody has found"


def test_few_list_a_run_that_seems_done():
    """Among many drivers, with nothing claimed, most wait to hear that all is published; not for ever, nor if few."""
    pages = Pages([f"{unit:03}" for unit in range(600)], 10)

    def done(seed, others):
        agenda, count = Agenda(pages, (), in_company=True, seed=seed), 0
        agenda.unit_seconds = 1.0
        while True:
            step = agenda.step()
            match step:
                case Look(page=page):
                    agenda.saw_claims(Claims.of([]), num_others=others, store_now=0.0)
                    list(agenda.saw_page(page, b"\1" * 10))
                case Pause():
                    count += 1
                case _:
                    assert step == Over()
                    assert agenda.has_all_published
                    return count

    assert {done(seed, 8) for seed in range(20)} == {0}
    counts = [done(seed, 1000) for seed in range(20)]
    assert max(counts) == 3
    assert sum(count == 3 for count in counts) > 15


def test_what_is_heard_ends_a_driver():
    """Once another has seen every part, nothing is given any more, and what was not known is told."""
    agenda = Agenda(paged(40), range(40), in_company=True)
    unit, _ = take(agenda, paged(40))
    agenda.finished(unit, 1.0)
    assert list(agenda.heard_all_published()) == [each for each in range(40) if each != unit]
    assert agenda.step() == Over()


@pytest.mark.parametrize("claim", [(3, 3, 0.0), (5, 2, 0.0), (0, 99, 0.0), (0, 2**40, 0.0)])
def test_a_made_up_claim_counts_for_nothing(claim):
    """A claim that no driver can have written is passed over."""
    pages = paged(3)
    assert isinstance(take(Agenda(pages, (), in_company=True), pages, (), [claim])[0], int)


def test_a_pause_is_followed_by_a_look():
    """While others have all that is left, a driver pauses between looks, for a part of a unit's time."""
    pages = paged(2)
    agenda = Agenda(pages, (), in_company=True)
    claims = [(0, 2, 0.0)]
    agenda.unit_seconds = 30.0
    assert take(agenda, pages, (), claims)[0] == Pause(22.5)
    assert isinstance(agenda.step(), Look)
    assert take(agenda, pages, [0, 1], ())[0] == Over()


def test_a_unit_that_failed_is_last():
    """A failure is tried again after what else is in hand; one that failed often, here or elsewhere, no more."""
    agenda = Agenda(paged(3), range(3), in_company=False)
    assert [agenda.step() for _ in range(2)][1] == Give(0)
    agenda.try_again(0)
    assert [agenda.step() for _ in range(3)] == [Give(1), Give(2), Give(0)]
    agenda.set_aside(0)
    agenda.put_back(1)
    agenda.saw_failures({1: 3, 2: 2})
    assert agenda.step() == Over()
    assert agenda.aside == {0, 1}
    assert agenda.num_open == 0


@pytest.mark.parametrize("in_company", [False, True])
def test_what_is_open_is_counted(in_company):
    """Given units are not open, put back ones are again, published ones are not."""
    pages = paged(10)
    agenda = Agenda(pages, range(10), in_company=in_company)
    unit, _ = take(agenda, pages)
    assert agenda.num_open == 9
    agenda.put_back(unit)
    assert agenda.num_open == 10
    take(agenda, pages)
    agenda.finished(unit, 1.0)
    assert agenda.num_open == 9
