"""The command line: one screen of help a verb, one line an error, one status a kind of error."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from support.bundles import write_bundle
from support.cli import use_fake_workers
from support.commands import LISTED, VERBS, parser
from support.fake_runs import contents, write_sources

from assay import __version__, errors
from assay.cli.main import EXIT_CODES, exit_code, main
from assay.cli.reference import reference
from assay.cli.verb import Group, Listed, Verb
from assay.cli.verbs import ASSAY
from assay.runs.run import open_run
from assay.telemetry import Counters, Progress, ProgressDisplay

pytestmark = pytest.mark.usefixtures("kept_sigterm")

SCREEN_LINES = 50
LONG = {"embed", "ensemble build", "estimate", "mine", "prepare books", "prepare labelled", "sudoku train"}
"""Commands of many rules, which get two screens."""
SCREEN_COLUMNS = 120


@pytest.fixture
def run(capsys):
    """The command line in this process: status, stdout, lines of stderr."""

    def call(*words):
        capsys.readouterr()
        status = main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err.splitlines()

    return call


def error_of(result, status=2):
    """The one line of an error, without its head, once the status is as expected and stdout is empty."""
    found, out, lines = result
    assert (found, out) == (status, ""), result
    assert len(lines) == 1, lines
    assert lines[0].startswith("assay: error: ")
    return lines[0].removeprefix("assay: error: ")


@pytest.fixture
def add(monkeypatch):
    """Put a command that does as told into the tree, under the words given (one, or more below groups)."""

    def call(*words, run, settings=VERBS["doctor"].settings, is_of_a_run=False):
        module = "tests_" + "_".join(words)
        example = "example: assay " + " ".join(words)
        verb = Verb(settings=settings, run=run, example=example, is_of_a_run=is_of_a_run)
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(VERB=verb))
        node = Listed(summary=f"Summary of {words[-1]}.", module=module)
        for word in reversed(words[1:]):
            node = Group(summary=f"Summary of the group of {word}.", commands={word: node})
        monkeypatch.setitem(ASSAY.commands, words[0], node)

    return call


def raising(error):
    """What a command runs that fails."""

    def fail(_):
        raise error

    return fail


# ------------------------------------------------------------ help


@pytest.mark.parametrize("name", VERBS)
def test_the_help_of_a_verb_is_one_screen(run, name):
    """`assay VERB --help` fits a screen (two where settings live in a file, three of train), each flag documented."""
    status, out, lines = run(*name.split(), "--help")
    assert (status, lines) == (0, [])
    shown = out.splitlines()
    screens = 3 if name == "train" else 2 if VERBS[name].config == "positional" or name in LONG else 1
    assert len(shown) <= SCREEN_LINES * screens
    assert max(map(len, shown)) <= SCREEN_COLUMNS
    assert shown[0].startswith(f"usage: assay {name}")
    assert LISTED[name].summary in out
    assert "example: " in out
    undocumented = [action.dest for action in parser(name)._actions if not action.help]
    assert undocumented == []


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_assay_alone_lists_every_verb(run, words):
    """Without a verb there is one screen with a line for each command, or group of commands."""
    status, out, lines = run(*words)
    assert (status, lines) == (0, [])
    assert len(out.splitlines()) <= SCREEN_LINES
    for name, node in ASSAY.commands.items():
        assert f"  {name} " in out
        assert node.summary in out


def test_version(run):
    """`assay --version` prints the version of the package."""
    assert run("--version") == (0, f"assay {__version__}\n", [])


def test_the_command_line_starts_without_heavy_libraries():
    """Importing it, and help, usage errors and completion, load no torch, transformers, Arrow or NumPy."""
    script = (
        "import sys; from assay.cli.main import main\n"
        "main([]); main(['score', '--help']); main(['score', '--bundel']); main(['completion', 'bash'])\n"
        "heavy = {'torch', 'transformers', 'tokenizers', 'pyarrow', 'numpy', 'obstore', 'rich', 'pydantic'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------ errors


def test_what_is_unknown_is_refused_with_the_nearest_name(run):
    """A command or a flag that does not exist names the one that was meant."""
    assert error_of(run("scroe")) == "unknown command scroe; did you mean score?"
    assert error_of(run("--verison")).startswith("unknown command --verison; ")
    assert error_of(run("score", "a", "--bundel", "b")) == "unknown flag --bundel; did you mean --bundle?"
    assert error_of(run("score", "--max_lenght=3")) == "unknown flag --max_lenght; did you mean --max-length?"
    # underscores are dashes: what is missing is all that is wrong
    assert error_of(run("score", "--max_length=3")) == "assay score needs SOURCE; see assay score --help"
    placed = error_of(run("evaluate", "--bundle", "b", "rows.csv"))
    assert placed.startswith(
        "--bundle is not a flag, BUNDLE stands without one: assay evaluate BUNDLE DATA... [opt"
    )
    assert error_of(run("score", "--source", "a")).startswith(
        "--source is not a flag, SOURCE stands without one: "
    )
    assert error_of(run("status", "--qqqqqq")) == "unknown flag --qqqqqq; see assay status --help"
    assert error_of(run("score", "--bund", "b")).startswith("unknown flag --bund; "), "no abbreviations"


def test_what_is_missing_or_too_much_is_named(run):
    """A required argument that is missing, one too many, and a flag without its value are named."""
    assert error_of(run("score")) == "assay score needs SOURCE; see assay score --help"
    assert error_of(run("score", "a")) == "assay score needs --bundle; see assay score --help"
    assert error_of(run("score", "a", "--bundle", "b")) == "assay score needs --run; see assay score --help"
    assert error_of(run("merge", "r")) == "assay merge needs --out; see assay merge --help"
    assert error_of(run("evaluate", "a", "--against", "b", "rows")) == (
        "assay evaluate needs DATA, before --against, which takes all that follow; see assay evaluate --help"
    )
    assert error_of(run("status", "a", "b")) == "'b' is one argument too many; see assay status --help"
    assert "--limit-rows: expected one argument" in error_of(run("score", "a", "--limit-rows"))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--unit-rows", "many"], "unit_rows is 'many'; it must be a whole number"),
        (["--unit-rows", "1.5"], "unit_rows is '1.5'; it must be a whole number"),
        (["--unit-rows", "1_0"], "unit_rows is '1_0'; it must be a whole number"),
        (["--unit-rows", "\N{ARABIC-INDIC DIGIT FIVE}"], "; it must be a whole number"),
        (["--parity-tolerance", "1_0.5"], "parity_tolerance is '1_0.5'; it must be a number"),
        (["--parity-tolerance", "small"], "parity_tolerance is 'small'; it must be a number"),
        (["--on-long", "cut"], "on_long is 'cut'; it must be one of truncate, "),
        (["--executor", "dask"], "executor is 'dask'; it must be one of local, "),
        (["--strict=yes"], "--strict: ignored explicit argument 'yes'"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(run, words, shown):
    """A number that is none, or a word that is not a choice, is shown with its flag and the way out."""
    error = error_of(run("score", "a", "--bundle", "b", "--run", "r", *words))
    assert shown in error
    assert "it must be" in error or error.endswith("; see assay score --help")


def test_each_kind_of_error_has_its_status(run, add):
    """0 done, 1 failed, 2 usage or input, 3 refused; a kind below another has the other's."""
    statuses = {kind.__name__: exit_code(kind("x")) for kind in _all_kinds(errors.AssayError)}
    assert statuses == {
        "AssayError": 1,
        "UsageError": 2,
        "InputError": 2,
        "SourceError": 2,
        "BundleError": 2,
        "RefusedError": 3,
        "WorkError": 1,
        "UnitError": 1,
        "StorageError": 1,
        "CheckError": 1,
        "DamagedPartError": 1,
        "RangeError": 1,
    }
    for kind, code in EXIT_CODES:
        add("fail", run=raising(kind("this is wrong; do that")))
        assert error_of(run("fail"), status=code) == "this is wrong; do that"


def _all_kinds(kind):
    """The kind and those below it in the tree; other tests may define more of their own."""
    ours = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(below for child in ours for below in _all_kinds(child))]


def test_an_error_is_one_line(run, add):
    """Line breaks in a message never reach stderr."""
    add("fail", run=raising(errors.InputError("one\ntwo\r\nthree\u2028four")))
    assert error_of(run("fail")) == "one two three four"


def test_an_unexpected_error_is_one_line_too(run, add):
    """A bug of ours: its type and the hint at --debug, status 1, no traceback. A path that may not be read is none."""
    add("fail", run=raising(ZeroDivisionError("by\nzero")))
    assert error_of(run("fail"), status=1) == "ZeroDivisionError: by zero (--debug shows where)"
    add("fail", run=raising(PermissionError(13, "Permission denied", "model/config.json")))
    said = "model/config.json: Permission denied; give this user the right to it and to its folder"
    assert error_of(run("fail"), status=1) == said


def test_debug_adds_the_traceback(run, add):
    """With --debug, wherever it stands, the traceback comes before the same last line."""
    add("fail", run=raising(errors.RefusedError("no; yes")))
    for words in (["fail", "--debug"], ["--debug", "fail"]):
        status, out, lines = run(*words)
        assert (status, out) == (3, "")
        assert lines[0].startswith("Traceback ")
        assert lines[-1] == "assay: error: no; yes"


def test_an_interrupt_says_how_to_go_on(run, add):
    """Ctrl-C ends with status 130 and what to do; only of a run is it said that the command goes on."""
    message = "interrupted: nothing half is published; run the same command again"
    add("fail", run=raising(KeyboardInterrupt()))
    assert run("fail") == (130, "", [message])
    add("fail", run=raising(KeyboardInterrupt()), is_of_a_run=True)
    assert run("fail") == (130, "", [f"{message} to go on"])


def test_a_reader_that_goes_away_is_no_error():
    """`assay ... | head -1` ends without a word on stderr."""
    command = f"{sys.executable} -m assay score --help | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: assay score")


# ------------------------------------------------------------ commands below commands


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchSettings:
    """What the command of these tests takes."""

    out: str
    """Where to."""


@pytest.fixture
def fetch(add):
    """A tree with `assay books fetch --out OUT`; what it was run with."""
    seen = []
    add("books", "fetch", run=lambda settings: seen.append(settings) or 0, settings=FetchSettings)
    return seen


def test_a_command_may_have_commands_below_it(run, fetch):
    """`assay books fetch` parses its own flags, and its errors name the whole command."""
    assert run("books", "fetch", "--out", "here") == (0, "", [])
    assert fetch == [FetchSettings(out="here")]
    assert error_of(run("books", "fetch")) == "assay books fetch needs --out; see assay books fetch --help"
    assert error_of(run("books", "fetsh")) == "unknown command fetsh; did you mean fetch?"
    assert error_of(run("books", "--zzz")) == "unknown command --zzz; see assay books --help"


def test_a_group_has_an_overview_and_each_command_below_it_a_screen(run, fetch):
    """A group alone, or with --help, lists its commands; the overview of `assay` has one line for the group."""
    for words in (["books"], ["books", "--help"], ["books", "help"]):
        status, out, lines = run(*words)
        assert (status, lines) == (0, [])
        assert out.startswith("assay books: Summary of the group of fetch.\n\nusage: assay books COMMAND")
        assert "  fetch  Summary of fetch." in out
    assert "  books       Summary of the group of fetch." in run("--help")[1]
    assert "fetch" not in run("--help")[1].replace("group of fetch", "")
    status, out, _ = run("books", "fetch", "--help")
    assert out.startswith("usage: assay books fetch --out OUT [options]\n\nSummary of fetch.")
    assert fetch == []


def test_commands_below_commands_are_in_the_reference_and_in_completion(run, fetch, tmp_path):
    """The generated page has a section for the group and one for its command; bash completes both words."""
    page = reference()
    assert "## assay books\n" in page
    assert "## assay books fetch\n\n```text\nusage: assay books fetch --out OUT" in page
    assert completed(run, tmp_path, ["assay", "books", "fe"]) == ["fetch"]
    assert "--out" in completed(run, tmp_path, ["assay", "books", "fetch", "--o"])


def test_every_command_is_in_a_module_of_its_own():
    """`assay score` is in cli/score.py, `assay prepare books` in cli/prepare_books.py: one file a command."""
    assert {name: node.module for name, node in LISTED.items()} == {
        name: "assay.cli." + name.replace(" ", "_") for name in LISTED
    }


# ------------------------------------------------------------ completion and doctor


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_a_script_of_that_shell(run, tmp_path, shell):
    """The script knows every verb and flag, and the shell can parse it."""
    status, out, lines = run("completion", shell)
    assert (status, lines) == (0, [])
    for word in {word for name in VERBS for word in name.split()}:
        assert word in out
    assert "--max-batch-tokens" in out
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here to parse the script")
    script = tmp_path / "script"
    script.write_text(out)
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stderr) == (0, "")


def completed(run, folder, words):
    """What bash offers for the last word, with the script that `assay completion bash` prints."""
    script = folder / "script"
    script.write_text(run("completion", "bash")[1])
    ask = (
        f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        'function=$(complete -p assay | sed "s/.*-F \\([^ ]*\\).*/\\1/")\n'
        f'$function assay "{words[-1]}" "{words[-2]}"; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(["bash", "-c", ask], capture_output=True, encoding="utf-8", check=True)
    return done.stdout.split()


def test_bash_completes_verbs_and_flags(run, tmp_path):
    """With the script loaded, `assay sc<TAB>` is score and `assay score --bun<TAB>` is --bundle."""
    assert "score" in completed(run, tmp_path, ["assay", "sc"])
    assert "--bundle" in completed(run, tmp_path, ["assay", "score", "--bun"])


def test_completion_for_an_unknown_shell(run):
    """Another shell is refused with those that there are."""
    error = error_of(run("completion", "cmd"))
    assert error.startswith("no completion for 'cmd'; there is bash, zsh, ")


def test_doctor_says_what_is_here(run):
    """Versions, devices, cores, memory, disk, and why a slower path is taken; as lines and as JSON."""
    status, out, _ = run("doctor")
    topics = [line.split()[0] for line in out.splitlines()]
    assert status == (1 if "PROBLEM" in topics else 0)
    assert topics[:3] == ["assay", "packages", "cpu"]
    status, out, _ = run("doctor", "--json")
    found = json.loads(out)
    topics = {"assay", "packages", "cpu", "cores", "slower path", "slower start", "memory", "disk"}
    assert topics <= set(found["findings"])
    assert __version__ in found["findings"]["assay"]
    assert "missing" not in found["findings"]["packages"]
    assert status == (1 if found["problems"] else 0)


def test_doctor_examines_a_bundle(run, tmp_path):
    """With --bundle it says which engine runs it; a bundle that cannot be loaded is status 2 and one line."""
    from support.models import write_model

    _, out, _ = run("doctor", "--bundle", write_model(tmp_path / "model"), "--json")
    findings = json.loads(out)["findings"]
    assert findings["bundle"].startswith("single_label, 2 outputs, up to 64 tokens, calibration none")
    assert "engine" in findings
    assert findings["on a GPU"] == "fp16 by default"
    assert findings["fingerprint"].startswith("bundle ")
    assert "no such folder" in error_of(run("doctor", "--bundle", tmp_path / "nowhere"))


def test_doctor_examines_a_siamese_bundle_and_a_cascade(run, tmp_path):
    """Labels, the engine of its encoder; of a cascade the thresholds and the engine of each model."""
    from support.siamese import make_siamese_folder, write_cascade_of  # loads torch

    _, out, _ = run("doctor", "--bundle", make_siamese_folder(tmp_path / "siamese"), "--json")
    findings = json.loads(out)["findings"]
    assert findings["bundle"].startswith("single_label, 2 outputs, up to 32 tokens, calibration none")
    assert "engine" in findings
    siamese = tmp_path / "siamese"
    cascade = write_cascade_of(tmp_path, siamese, siamese, low=0.25)
    _, out, _ = run("doctor", "--bundle", cascade, "--json")
    findings = json.loads(out)["findings"]
    assert findings["cascade"].endswith("below 0.2500 turned away")
    assert "1st engine" in findings
    assert "2nd engine" in findings


def test_doctor_tells_leftovers_and_other_token_ids(run, tmp_path):
    """Weights that are not read are noted; ids that differ from transformers' are a problem with a way out."""
    from support.models import change_json, write_model  # loads torch

    folder = write_model(tmp_path / "model")
    _, out, _ = run("doctor", "--bundle", folder, "--json")
    found = json.loads(out)
    assert found["findings"]["tokenizer"] == "the same ids as transformers on 6 texts"
    assert not [problem for problem in found["problems"] if str(folder) in problem]
    (folder / "pytorch_model.bin").write_bytes(b"an older model")
    change_json(folder / "tokenizer_config.json", do_lower_case=False)
    _, out, _ = run("doctor", "--bundle", folder)
    assert "pytorch_model.bin is not read" in out
    assert "do_lower_case is False and lowercase in tokenizer.json True" in out
    assert "PROBLEM" in out
    assert "by AutoTokenizer" in out
    assert "save_pretrained()" in out


# ------------------------------------------------------------ plans, trials, progress


@pytest.fixture
def score(run, tmp_path, monkeypatch, worker_host):
    """`assay score` over 400 rows of two sources, with fake workers."""
    use_fake_workers(monkeypatch.setattr, host=worker_host)
    sources = write_sources(tmp_path / "sources", [300, 100])
    bundle = write_bundle(tmp_path / "bundle")

    def call(*more):
        where = ["--bundle", bundle, "--run", tmp_path / "run", "--engine", "fake", "--unit-rows", "50"]
        return run("score", sources, *where, *more)

    return call


def test_a_dry_run_prints_the_plan_and_writes_nothing(score, tmp_path):
    """--dry-run says sources, rows, units, workers and columns; no run directory appears."""
    before = sorted(tmp_path.rglob("*"))
    status, out, lines = score("--dry-run")
    assert (status, lines) == (0, [])
    assert "sources  2 with 400 rows to do" in out
    assert "units    8 of 50 to 50 rows" in out
    assert "columns  id, num_tokens, truncated, error, prediction, " in out
    assert "tail     none with one worker" in out
    assert sorted(tmp_path.rglob("*")) == before
    _, out, _ = score("--dry-run", "--executor", "static", "--rank", "0", "--world-size", "3")
    assert (
        "tail     2.7 units for each of 3 workers: the last ones cost 12.5% over an even split; --unit-rows 1"
        in out
    )


def test_limit_rows_scores_the_first_rows(score, tmp_path):
    """--limit-rows N is a run of the first N rows that verifies; fewer than one row is refused."""
    assert score("--limit-rows", "310")[0] == 0
    parts = contents(open_run(str(tmp_path / "run")))
    ids = sorted(value for part, _ in parts.values() for value in part["id"])
    assert ids == sorted([f"0-{row}" for row in range(300)] + [f"1-{row}" for row in range(10)])
    assert main(["verify", str(tmp_path / "run")]) == 0
    for number in ("0", "-3"):
        error = error_of(score("--limit-rows", number))
        assert f"limit_rows is {number}; " in error


def test_what_comes_next_can_be_pasted(score, tmp_path):
    """A folder with a space in its name is quoted."""
    status, out, _ = score("--limit-rows", "10", "--run", tmp_path / "my run")
    assert status == 0
    assert out.splitlines()[-1].startswith(
        f"next: assay verify '{tmp_path}/my run'; assay merge '{tmp_path}/my run' "
    )


def test_numbers_out_of_range_are_refused_before_anything_is_written(score, tmp_path):
    """Rows of a unit, tokens of a batch, devices and parity documents below their least are usage errors."""
    for flag in ("--unit-rows", "--max-batch-tokens", "--devices"):
        assert "0" in error_of(score(flag, "0"))
    assert "-1" in error_of(score("--parity-documents", "-1"))
    assert not (tmp_path / "run").exists()


def test_the_same_command_goes_on_and_says_so(score, tmp_path):
    """A run that is there is gone on with: what is published stays, and a line says how much is left."""
    assert score()[0] == 0
    run = open_run(str(tmp_path / "run"))
    before = contents(run)
    for name in sorted(before)[:3]:
        (tmp_path / "run" / "parts" / f"{name}.parquet").unlink()
    status, out, lines = score()
    assert status == 0
    assert "5 of 8 units are published; going on with 3." in lines
    assert "8 of 8 units published" in out
    assert contents(run) == before
    status, out, lines = score()
    assert (status, lines) == (0, ["All 8 units are published already; nothing to do."])


def test_without_a_terminal_progress_is_a_json_line_a_minute():
    """A log gets one JSON object a minute, with rates, padding and time left, however often it is updated."""
    now = [0.0]
    stream = io.StringIO()
    progress = Progress(units_total=10, units_done=2, rows_total=1000, rows_done=250, num_workers=1)
    progress.counters = Counters(rows=200, tokens=9_000, padded_tokens=10_000, error_rows=1)
    progress.seconds = 50.0
    with ProgressDisplay("score", stream=stream, clock=lambda: now[0]) as display:
        for second in range(0, 185, 5):
            now[0] = float(second)
            display.update(progress)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(lines) == 3
    assert lines[0] == {
        "event": "progress",
        "task": "score",
        "phase": None,
        "units_done": 2,
        "units_total": 10,
        "rows_done": 250,
        "rows_total": 1000,
        "docs_per_second": 4.0,
        "tokens_per_second": 180,
        "padding_waste": 0.1,
        "error_rows": 1,
        "seconds": 50.0,
        "seconds_left": 188,
    }
