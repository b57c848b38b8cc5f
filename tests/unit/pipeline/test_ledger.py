"""What is done stays done; what is of other inputs is refused or made again; a kill costs the step it falls in."""

import json
import re

import pytest

from assay.errors import RefusedError
from assay.pipeline.ledger import STATE_FILE, Step, open_ledger, steps_done


class Killed(BaseException):
    """Stands for a kill."""


def steps_of(folder, log, *, size=3, killed_in=None):
    """Two steps, the second of which reads what the first made: files with their settings."""

    def work(name, content):
        def make():
            log.append(name)
            if killed_in == f"before {name}":
                raise Killed
            (folder / name).write_text(content)
            if killed_in == f"after {name}":
                raise Killed
            return {"id": f"{content}", "counts": (1, 2)}

        return make

    first = Step(
        name="first",
        title="the first",
        inputs={"size": size},
        outputs=[folder / "one"],
        work=work("one", f"size {size}"),
    )
    yield first
    yield lambda made: Step(
        name="second",
        title="the second",
        inputs={"reads": made["id"], "names": ("a", "b")},
        outputs=[folder / "two"],
        leftovers=[folder / "two.half"],
        work=work("two", f"of {made['id']}"),
    )


def run(folder, *, overwrite=False, **changes):
    """Both steps; returns what they made, which worked, and what was said."""
    log, said = [], []
    with open_ledger(folder, overwrite=overwrite, say=said.append) as ledger:
        first, second = steps_of(folder, log, **changes)
        made = ledger.do(first)
        return [made, ledger.do(second(made))], log, said


def test_what_is_done_is_done_once(tmp_path):
    """The same inputs: nothing works again, and what was made is the same value."""
    made, log, said = run(tmp_path / "out")
    assert log == ["one", "two"]
    assert [re.sub(r"done in \S+:", "done:", line) for line in said] == [
        "the first",
        "done: the first",
        "the second",
        "done: the second",
    ]
    again, log, said = run(tmp_path / "out")
    assert log == []
    assert again == made
    assert said == ["done before: the first", "done before: the second"]
    assert steps_done(tmp_path / "out") == ["first", "second"]


@pytest.mark.parametrize("killed_in", ["before one", "after one", "before two", "after two"])
def test_a_killed_step_is_taken_again_and_no_other(killed_in, tmp_path):
    """Whether what it makes was there already or not."""
    with pytest.raises(Killed):
        run(tmp_path / "out", killed_in=killed_in)
    made, log, _ = run(tmp_path / "out")
    assert log == (["one", "two"] if killed_in.endswith("one") else ["two"])
    assert [each["id"] for each in made] == ["size 3", "of size 3"]


def test_other_inputs_are_refused_with_their_name(tmp_path):
    """The value before and now, and the ways out; nothing is touched."""
    run(tmp_path / "out")
    with pytest.raises(RefusedError, match=r"first: size is 4, and was 3; .*--out, or --overwrite"):
        run(tmp_path / "out", size=4)
    assert (tmp_path / "out" / "one").read_text() == "size 3"
    assert run(tmp_path / "out")[1] == []


def test_overwritten_steps_take_with_them_what_depends_on_them(tmp_path):
    """Both are made again, half of a stopped one is removed, and it is said why."""
    run(tmp_path / "out")
    (tmp_path / "out" / "two.half").mkdir()
    made, log, said = run(tmp_path / "out", size=4, overwrite=True)
    assert log == ["one", "two"]
    assert made[1]["id"] == "of size 4"
    assert not (tmp_path / "out" / "two.half").exists()
    assert "first is made again: size is 4, and was 3" in said


def test_a_kill_while_it_is_made_again_does_not_bring_the_old_back(tmp_path):
    """What was made of other inputs is gone before the step begins."""
    run(tmp_path / "out")
    with pytest.raises(Killed):
        run(tmp_path / "out", size=4, overwrite=True, killed_in="before one")
    made, log, _ = run(tmp_path / "out", size=4, overwrite=True)
    assert log == ["one", "two"]
    assert made[0]["id"] == "size 4"


def test_what_was_removed_is_made_again(tmp_path):
    """A file that is gone is not done."""
    run(tmp_path / "out")
    (tmp_path / "out" / "one").unlink()
    assert run(tmp_path / "out")[1] == ["one"]


def test_settings_may_be_put_right_before_anything_is_made(tmp_path):
    """A step that failed at once is no reason to refuse other settings."""
    with pytest.raises(Killed):
        run(tmp_path / "out", size=0, killed_in="before one")
    assert run(tmp_path / "out", size=3)[1] == ["one", "two"]


def test_files_of_others_are_left_alone(tmp_path):
    """A folder with other files is refused, and so is one file in the place of a step's."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RefusedError, match=r"holds other files \(thesis.txt\)"):
        run(tmp_path / "mine")
    with pytest.raises(Killed):
        run(tmp_path / "out", killed_in="before one")
    (tmp_path / "out" / "two").write_text("not ours")
    with pytest.raises(RefusedError, match="this pipeline did not make it"):
        run(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "two").read_text() == "not ours"


def test_a_folder_in_which_nothing_began_is_not_left(tmp_path):
    """Whoever mistyped the folder of books may use the same --out; one with steps stays."""
    with pytest.raises(Killed), open_ledger(tmp_path / "out", overwrite=False, say=print):
        raise Killed
    assert not (tmp_path / "out").exists()
    with pytest.raises(Killed):
        run(tmp_path / "out", killed_in="before one")
    assert (tmp_path / "out" / STATE_FILE).is_file()


def test_one_command_at_a_time(tmp_path):
    """The second is refused while the first is at work."""
    with (
        open_ledger(tmp_path / "out", overwrite=False, say=print),
        pytest.raises(RefusedError, match="another command is at work"),
    ):
        run(tmp_path / "out")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format_version": 99, "steps": {}, "looks_at_test": []}']
)
def test_a_damaged_ledger_is_one_line(content, tmp_path):
    """It is never taken for an empty one."""
    run(tmp_path / "out")
    (tmp_path / "out" / STATE_FILE).write_text(content)
    with pytest.raises(RefusedError, match="another --out"):
        run(tmp_path / "out")


def test_looks_at_the_test_are_counted_before_they_are_taken(tmp_path):
    """Once for each cascade; whoever is killed as he looks has looked."""
    with open_ledger(tmp_path / "out", overwrite=False, say=print) as ledger:
        for models, looks in (("a", 1), ("a", 1), ("b", 2)):
            ledger.look_at_test(models)
            assert ledger.looks_at_test == looks
            assert len(json.loads((tmp_path / "out" / STATE_FILE).read_text())["looks_at_test"]) == looks
