"""Settings: groups that compose, one default a setting, and ranges that hold wherever a value comes from."""

import math
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Literal, get_type_hints

import pytest
from support import commands
from support.commands import VERBS

from assay.cli.flags import fields as in_order_of_help
from assay.errors import UsageError
from assay.settings import (
    AUTO_OR_COUNT,
    COUNT,
    Range,
    Settings,
    count_of,
    is_after_dashes,
    is_positional,
    positional,
    shared,
    within,
)

FROM_MINUS_ONE = {("mine", "max_score"), ("mine", "min_score")}
"""Cosine similarities, for which -1 will do."""
WITHOUT_RANGE = {
    ("train", "int_score_min"),  # any whole number will do
    ("train", "int_score_max"),
}


@dataclass(frozen=True, kw_only=True)
class Lengths(Settings):
    """A group."""

    length: int | None = field(default=None, metadata=COUNT)
    """Tokens."""


@dataclass(frozen=True, kw_only=True)
class Places(Settings):
    """Another group."""

    where: str
    """A folder."""
    devices: str = field(default="auto", metadata=AUTO_OR_COUNT)
    """How many."""


@dataclass(frozen=True, kw_only=True)
class Sampling(Lengths, Places):
    """What a command would compose."""

    share: float = field(default=0.5, metadata=within(above=0, below=1))
    """Share of rows."""
    name: str = field(metadata=positional("NAME"))
    """Which."""
    many: tuple[str, ...] = ()
    """Some."""
    how: Literal["first", "last"] = "first"
    """Which end."""

    def check(self):
        """A rule of two fields."""
        if self.length == 7 and self.share > 0.7:
            raise UsageError("length 7 goes with a share up to 0.7; lower it")


REQUIRED = {"where": "w", "name": "n"}


def test_groups_compose_into_flat_settings():
    """A class has the fields of its groups beside its own; what is required or shared is so for them too."""
    made = Sampling(**REQUIRED, length=3)
    assert (made.where, made.devices, made.length, made.share) == ("w", "auto", 3, 0.5)
    assert replace(made, share=0.1).share == 0.1
    with pytest.raises(TypeError, match="where"):
        Sampling(name="n")
    assert shared(made, Lengths) == {"length": 3}
    assert [each.name for each in in_order_of_help(Sampling)] == [
        "name",
        "where",
        "share",
        "many",
        "how",
        "length",
        "devices",
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"length": 0}, "length is 0; it must be at least 1; change it or leave it out"),
        ({"length": True}, "length is True; it must be a whole number"),
        ({"length": "3"}, "length is '3'; it must be a whole number"),
        ({"length": 3.0}, "length is 3.0; it must be a whole number"),
        ({"length": 2**63}, "length is 9223372036854775808; it must be a number of at most 63 bits"),
        ({"share": True}, "share is True; it must be a number"),
        ({"where": 3}, "where is 3; it must be a string"),
        ({"where": None}, "where is None; it must be a string"),
        ({"where": ""}, "where is ''; it must not be empty; name one"),
        ({"many": ["ab", ""]}, "many holds ''; it must not be empty; name one or leave it out"),
        ({"many": "ab"}, "many is 'ab'; it must be a list of strings"),
        ({"many": ["ab", 3]}, "many is ['ab', 3]; it must be a list of strings"),
        ({"how": "most"}, "how is 'most'; it must be one of first, last"),
        ({"how": ["first"]}, "how is ['first']; it must be one of first, last"),
        ({"share": 1.0}, "share is 1.0; it must be above 0 and below 1; set for example 0.5"),
        (
            {"share": math.nan},
            "share is nan; it must be a finite number, above 0 and below 1; set for example 0.5",
        ),
        ({"share": None}, "share is None; it must be a number"),
        (
            {"devices": "0"},
            "devices is '0'; it must be auto or a whole number from 1 to 1,024; set for example auto",
        ),
        (
            {"devices": "two"},
            "devices is 'two'; it must be auto or a whole number from 1 to 1,024; set for example auto",
        ),
        (
            {"devices": "9" * 20},
            f"devices is '{'9' * 20}'; it must be auto or a whole number from 1 to 1,024; set for example auto",
        ),
        ({"length": 7, "share": 0.9}, "length 7 goes with a share up to 0.7; lower it"),
    ],
)
def test_a_wrong_value_is_refused_where_it_is_made(wrong, said):
    """The message has the setting, its value, the rule and the way out; rules of two fields come last."""
    with pytest.raises(UsageError) as caught:
        Sampling(**{**REQUIRED, **wrong})
    assert str(caught.value) == said


def test_a_path_stands_for_its_text():
    """Who has paths in Python need not convert them; a list is as good as a tuple."""
    made = Sampling(where=Path("a") / "b", name="n", many=[Path("c"), "d"])
    assert (made.where, made.many) == ("a/b", ("c", "d"))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("many", "a whole number"),
        ("1.5", "a whole number"),
        ("", "a whole number"),
        ("nan", "a whole number"),
    ],
)
def test_another_type_is_refused_in_the_same_words_everywhere(value, wanted, tmp_path):
    """As a flag, in a file, which is named, and in Python."""
    said = f"is {value!r}; it must be {wanted}"
    file = tmp_path / "c.toml"
    file.write_text(f"unit_rows = {value!r}")
    ways = (
        lambda: commands.parse("score", ["x", "--bundle", "b", "--run", "r", "--unit-rows", value]),
        lambda: commands.parse("score", ["x", "--bundle", "b", "--run", "r", "--config", file]),
        lambda: VERBS["score"].settings(sources=("x",), bundle="b", run="r", unit_rows=value),
    )
    for way, where in zip(ways, ("", f" in {file}", ""), strict=True):
        with pytest.raises(UsageError) as caught:
            way()
        assert str(caught.value) == f"unit_rows{where} {said}"


def test_a_range_has_ends():
    """Each end takes part or not as declared; infinity is in no range."""
    assert [Range(at_least=0, at_most=1).holds(value) for value in (-0.1, 0, 1, 1.1)] == [
        False,
        True,
        True,
        False,
    ]
    assert [Range(above=0, below=1).holds(value) for value in (0, 0.5, 1)] == [False, True, False]
    assert not Range(at_least=0).holds(math.inf)
    assert [count_of(value) for value in ("auto", "3")] == [None, 3]


def numbers():
    """Every setting of every command that is a number: the command, the field, whether it is a whole one."""
    for name, verb in VERBS.items():
        hints = get_type_hints(verb.settings)
        for each in fields(verb.settings):
            if hints[each.name] in {int, float, int | None, float | None}:
                yield name, each


def test_every_number_declares_its_range():
    """No number of any command goes unchecked: -1 at least is refused by a declared range."""
    unchecked = {(name, each.name) for name, each in numbers() if "rule" not in each.metadata}
    assert unchecked == WITHOUT_RANGE
    assert {
        (name, each.name)
        for name, each in numbers()
        if "rule" in each.metadata and each.metadata["rule"].holds(-1)
    } == FROM_MINUS_ONE


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        (name, each.name)
        for name, each in numbers()
        if (name, each.name) not in WITHOUT_RANGE | FROM_MINUS_ONE
    ],
)
def test_flags_files_and_python_are_checked_alike(name, setting, tmp_path):
    """A number out of its range is refused with the same line, as a flag, in a file and in Python."""
    settings = VERBS[name].settings
    required = [each for each in fields(settings) if each.default is MISSING]
    hints = get_type_hints(settings)
    values = {each.name: "x" if hints[each.name] is str else ("x",) for each in required}
    with pytest.raises(UsageError) as caught:
        settings(**values, **{setting: -1})
    said = str(caught.value)
    assert said.startswith(f"{setting} is -1; it must be ")
    by_flag = [f"--{setting.replace('_', '-')}=-1"]
    if VERBS[name].config == "none":
        for each in sorted(required, key=is_after_dashes):
            behind = ["--", "x"] if is_after_dashes(each) else [f"--{each.name}=x"]
            by_flag += ["x"] if is_positional(each) else behind
        given = [by_flag]
    else:
        lines = [
            f"{key} = {list(value) if isinstance(value, tuple) else value!r}" for key, value in values.items()
        ]
        right, wrong = tmp_path / "right.toml", tmp_path / "wrong.toml"
        right.write_text("\n".join(lines))
        wrong.write_text("\n".join([*lines, f"{setting} = -1"]))
        by_config = [] if VERBS[name].config == "positional" else ["--config"]
        given = [[*by_config, right, *by_flag], [*by_config, wrong]]
    for words in given:
        with pytest.raises(UsageError) as caught:
            commands.parse(name, words)
        assert str(caught.value).replace("-1.0", "-1") == said


HUGE = {
    "train": (
        "epochs",
        "learning_rate",
        "weight_decay",
        "lora_rank",
        "vector_size",
        "head_size",
        "temperature",
    ),
    "bench": ("rounds", "price_per_hour"),
    "evaluate": ("resamples",),
    "cascade tune": ("resamples",),
    "report": ("price_per_hour",),
    "gutenberg harvest": ("timeout_seconds", "tries", "max_wait_seconds", "max_book_mib"),
    "prepare books": (
        "weight_random",
        "positives",
        "negatives",
        "mine_trials",
        "chunks_per_side",
        "min_gap_sentences",
    ),
}


@pytest.mark.parametrize(("name", "setting"), [(name, each) for name in HUGE for each in HUGE[name]])
def test_what_no_machine_could_do_is_refused(name, setting):
    """A number so large that the work would fail later, or never end, has an upper bound."""
    (each,) = [each for each in fields(VERBS[name].settings) if each.name == setting]
    huge = 2**63 - 1 if get_type_hints(VERBS[name].settings)[setting] in {int, int | None} else 1e300
    assert not each.metadata["rule"].holds(huge)
