"""The public names, frozen: adding one is a decision, losing one breaks somebody."""

import dataclasses
import inspect
import subprocess
import sys
import typing

import pytest
from support.commands import VERBS

import assay
from assay import api
from assay.errors import AssayError

VERB_FUNCTIONS = {
    "bench",
    "calibrate",
    "cascade_tune",
    "clean",
    "compare",
    "embed",
    "ensemble",
    "ensemble_build",
    "estimate",
    "evaluate",
    "join",
    "merge",
    "mine",
    "pipeline_books",
    "prepare_books",
    "prepare_labelled",
    "quickstart",
    "report",
    "score",
    "serve",
    "status",
    "style_calibrate",
    "sudoku_build",
    "sudoku_train",
    "tokenize",
    "train",
    "verify",
}
API_NAMES = [
    "AssayError",
    "BenchReport",
    "BenchSettings",
    "BooksReport",
    "BooksSettings",
    "BuildResult",
    "BuildSettings",
    "CalibrateReport",
    "CalibrateSettings",
    "CascadeReport",
    "CascadeTuneSettings",
    "Classifier",
    "CleanReport",
    "CleanSettings",
    "CompareSettings",
    "Comparison",
    "EmbedSettings",
    "EngineRunResult",
    "EnsembleResult",
    "EnsembleSettings",
    "EstimateRecord",
    "EstimateSettings",
    "EvaluateReport",
    "EvaluateSettings",
    "JoinResult",
    "JoinSettings",
    "LabelledSettings",
    "MergeReport",
    "MineResult",
    "MineSettings",
    "PipelineReport",
    "PipelineSettings",
    "PrepareResult",
    "Proof",
    "PuzzleReport",
    "PuzzleTraining",
    "QuickstartResult",
    "ReportSummary",
    "ScoreSettings",
    "ServeSettings",
    "SiameseModel",
    "Status",
    "StyleCalibrateSettings",
    "StyleReport",
    "SudokuBuildReport",
    "SudokuBuildSettings",
    "TokenizeResult",
    "TokenizeSettings",
    "TrainReport",
    "TrainSettings",
    *sorted(VERB_FUNCTIONS | {"load", "load_siamese"}),
]


def test_the_names_of_the_package_are_frozen():
    """`assay` offers the classifier for notebooks, the clients of a server and its version, nothing else."""
    assert sorted(assay.__all__) == ["AsyncClient", "Classifier", "Client", "__version__", "load"]
    assert assay.load is api.load
    assert assay.Classifier is api.Classifier
    with pytest.raises(AttributeError, match="module 'assay' has no attribute 'laod'"):
        assay.laod  # noqa: B018


def test_the_names_of_the_api_are_frozen():
    """`assay.api` offers each verb, its settings and what it returns; all of them exist."""
    assert api.__all__ == API_NAMES
    assert all(hasattr(api, name) for name in API_NAMES)


def test_each_verb_that_works_is_a_function():
    """What the command line can do to data, Python can; what gathers texts or starts fleets is for shells alone."""
    for_shells = {
        "doctor",
        "completion",
        *(name for name in VERBS if name.split()[0] in {"gutenberg", "launch"}),
    }
    assert {name.replace(" ", "_") for name in set(VERBS) - for_shells} == VERB_FUNCTIONS
    for name in VERB_FUNCTIONS:
        assert inspect.isfunction(getattr(api, name))


def test_settings_are_the_same_values_as_on_the_command_line():
    """A verb with a settings class takes that very class as its first argument, in Python and in the shell."""
    for name in ("bench", "calibrate", "evaluate", "score", "tokenize", "train"):
        function = getattr(api, name)
        first = next(iter(inspect.signature(function).parameters))
        assert typing.get_type_hints(function)[first] is VERBS[name].settings
        assert VERBS[name].settings is getattr(api, f"{name.title()}Settings")


def test_every_public_name_is_documented_and_typed():
    """Each has a docstring; each function has a type for every argument and for what it returns."""
    for name in API_NAMES:
        thing = getattr(api, name)
        assert (thing.__doc__ or "").strip(), name
        if inspect.isfunction(thing):
            hints = typing.get_type_hints(thing)
            assert set(hints) == {*inspect.signature(thing).parameters, "return"}, name


def test_settings_are_values():
    """Settings are frozen and given by name, so that none can be changed or mixed up under way."""
    for name in API_NAMES:
        thing = getattr(api, name)
        if not name.endswith("Settings"):
            continue
        assert thing.__dataclass_params__.frozen, name
        assert all(field.kw_only for field in dataclasses.fields(thing)), name


def test_errors_have_one_base():
    """Whoever catches AssayError catches everything that is raised on purpose."""
    assert issubclass(api.AssayError, Exception)
    assert api.AssayError is AssayError


def test_importing_the_package_is_quick():
    """`import assay` loads nothing heavy; what needs torch comes when it is asked for."""
    script = (
        "import sys, assay; print(sorted({'torch', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "[]\n"


def test_what_is_loaded_when_asked_for_is_listed():
    """`dir(assay)`, and so tab completion, shows the names that are imported on first use, and no switch of ours."""
    script = "import assay; print(*dir(assay))"
    listed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert {"load", "Classifier", "Client", "AsyncClient", "__version__"} <= set(listed.split())
    assert "TYPE_CHECKING" not in listed
