"""Near-duplicates: found in time about linear, the same on every machine, whatever the order."""

import random
import sys
import time

import pytest

from assay.errors import UsageError
from assay.labelled import near_duplicates
from assay.labelled.near_duplicates import group_near_duplicates

ARTICLE = " ".join(f"word{index}" for index in range(120))


def changed(text, *places):
    """The text with other words at these places."""
    words = text.split()
    for place in places:
        words[place] = f"other{place}"
    return " ".join(words)


def test_near_duplicates_share_a_group_and_others_do_not():
    """A changed title, a shortened copy and other punctuation are found; another text is not."""
    other = " ".join(f"else{index}" for index in range(120))
    shortened = " ".join(ARTICLE.split()[:80])
    texts = [ARTICLE, f"a new title {ARTICLE}", other, shortened, ARTICLE.upper().replace(" ", ", ")]
    assert group_near_duplicates(texts) == [0, 0, 2, 0, 0]


def test_a_common_phrase_makes_no_group():
    """One shared sentence in long texts is no reason to keep them together, however many share it."""
    shared = "all rights reserved by the publisher of this page"
    texts = [f"{' '.join(f'w{row}x{index}' for index in range(100))} {shared}" for row in range(200)]
    assert group_near_duplicates(texts) == list(range(200))


def test_groups_are_transitive():
    """The first and the last of a chain of small changes share no word and still a group."""
    steps = [ARTICLE]
    for begin in range(0, 120, 12):
        steps.append(changed(steps[-1], *range(begin, begin + 12)))
    assert set(group_near_duplicates(steps)) == {0}
    assert group_near_duplicates([steps[0], steps[-1]]) == [0, 1]


def test_short_and_wordless_texts_resemble_their_equals_alone():
    """A text of fewer than three words is one shingle; one of no word resembles nothing but itself."""
    texts = ["short", "Short!", "shorter", "", "  ", "!!!", "???", "!!!"]
    assert group_near_duplicates(texts) == [0, 0, 2, 3, 3, 5, 6, 5]


def test_texts_without_spaces_are_compared_by_character():
    """Chinese and Japanese articles with a changed character are near-duplicates."""
    story = "敏捷的棕色狐狸跳过了懒狗然后它跑进了森林里去寻找食物和水"
    assert group_near_duplicates([story, story.replace("狗", "猫"), "今天的天气非常好我们去公园散步吧"]) == [
        0,
        0,
        2,
    ]


def test_both_texts_of_a_pair_count():
    """The same first text with other second texts is another row; the same pair twice is not."""
    seconds = [" ".join(f"s{row}x{index}" for index in range(120)) for row in range(2)]
    assert group_near_duplicates([ARTICLE, ARTICLE], seconds) == [0, 1]
    assert group_near_duplicates([ARTICLE, ARTICLE], [seconds[0], changed(seconds[0], 5)]) == [0, 0]


def test_texts_that_no_utf8_holds_are_compared():
    """A lone surrogate is a character like others."""
    assert group_near_duplicates([f"\ud800 {ARTICLE}", ARTICLE, "\ud800"]) == [0, 0, 2]


def test_the_order_of_the_rows_does_not_matter():
    """The same texts are tied together when the file is shuffled."""
    rng = random.Random(0)
    texts = [
        " ".join(rng.choices([f"w{index}" for index in range(40)], k=rng.randint(3, 30))) for _ in range(200)
    ]
    texts += [changed(text, len(text.split()) // 2) for text in texts]

    def tied(order):
        groups = group_near_duplicates([texts[row] for row in order])
        together = {}
        for row, group in zip(order, groups, strict=True):
            together.setdefault(group, set()).add(row)
        return {frozenset(rows) for rows in together.values()}

    order = list(range(400))
    expected = tied(order)
    assert any(len(rows) > 1 for rows in expected)
    rng.shuffle(order)
    assert tied(order) == expected


def test_signatures_are_those_of_every_machine():
    """Pinned: a split of one release is a split of every machine. Words are hashed here, seeds are fixed."""
    signatures = near_duplicates.signatures_of(["the quick brown fox jumps", "Grüße, 世界和平!"])
    assert signatures[:, :3].tolist() == [
        [3598482754, 3294742305, 3019435081],
        [3475253615, 3343769852, 3656228546],
    ]


def test_a_template_filled_in_ten_thousand_times_takes_seconds():
    """Rows that nearly all resemble each other are the worst case of a search by pairs."""
    began = time.process_time()
    texts = [
        f"Your order number {row} was shipped today to the address that you gave" for row in range(10_000)
    ]
    groups = group_near_duplicates(texts)
    assert time.process_time() - began < 20
    assert len(set(groups)) < 10


def test_without_the_library_the_way_out_is_named(monkeypatch):
    """The package that does it, or the setting that does without."""
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(
        UsageError, match=r"rensa of the extra train.*corpus\[train\]', or set near_duplicates"
    ):
        group_near_duplicates(["a", "b"])


def test_no_texts_have_no_groups():
    """An empty column is legal here."""
    assert group_near_duplicates([]) == []
