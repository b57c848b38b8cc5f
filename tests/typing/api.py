"""The public API as a user's program sees it; mypy checks this file, nothing runs it."""

from typing import assert_type

import assay
from assay import api
from assay.tasks import Task


def notebook() -> None:
    """A classifier takes whatever column a notebook holds."""
    classifier = assay.load("bundle/", device="cpu", max_length=128, on_long="window-mean", stride=16)
    assert_type(classifier, api.Classifier)
    assert_type(classifier.labels, tuple[str, ...])
    classifier.predict("one text")
    classifier.predict(["one", "two"])
    classifier.predict(text for text in ("one", "two"))
    classifier.predict(["a question"], ["an answer"]).to_pandas()
    classifier.predict([("a question", "an answer")])
    classifier.predict(classifier.predict("one text"), text_column="error", text_pair_column="error")
    assert_type(classifier.bundle.task, Task)
    assert_type(repr(classifier), str)


def run() -> None:
    """Each verb of a run: settings in, a typed result out."""
    settings = api.ScoreSettings(
        sources=("corpus/*.parquet",),
        bundle="bundle/",
        run="run/",
        on_long="head-tail",
        executor="static",
        rank=0,
        world_size=4,
    )
    scored = api.score(settings, on_progress=lambda progress: None, on_message=print)
    assert_type(scored, api.EngineRunResult)
    assert_type(scored.run_url, str)
    assert_type(api.status("run/"), api.Status)
    proof = api.verify("run/", sources=True, duplicates=True)
    assert_type(proof, api.Proof)
    assert_type(proof.holds, bool)
    assert_type(proof.duplicate_ids, int | None)
    assert_type(api.merge("run/", "scored/", columns=("prediction",), prefix="assay_"), api.MergeReport)
    assert_type(api.report("run/", out="report.html", price_per_hour=2.5), api.ReportSummary)


def prepare() -> None:
    """Each verb that makes a bundle or tokens."""
    tokens = api.TokenizeSettings(sources=("corpus/",), bundle="bundle/", run="tokens/")
    assert_type(api.tokenize(tokens), api.TokenizeResult)
    training = api.TrainSettings(base="base/", out="bundle/", data=("rows.jsonl",))
    assert_type(api.train(training), api.TrainReport)
    held_out = api.CalibrateSettings(bundle="bundle/", data=("held-out.jsonl",))
    assert_type(api.calibrate(held_out), api.CalibrateReport)
    test = api.EvaluateSettings(bundle="bundle/", data=("test.jsonl",), against=("other/",))
    assert_type(api.evaluate(test), api.EvaluateReport)
    assert_type(api.quickstart("first-run/"), api.QuickstartResult)


def wrong() -> None:
    """What must not pass the type checker, each with the complaint that proves it."""
    api.ScoreSettings(sources=("a",), bundle="b")  # type: ignore[call-arg]
    api.ScoreSettings(sources=("a",), bundle="b", run="r", on_long="cut")  # type: ignore[arg-type]
    settings = api.ScoreSettings(sources=("a",), bundle="b", run="r")
    settings.run = "other"  # type: ignore[misc]
    assay.load("bundle/", on_long="cut")  # type: ignore[arg-type]
    api.score("run/")  # type: ignore[arg-type]


def errors() -> None:
    """One base to catch."""
    try:
        api.verify("run/")
    except api.AssayError as error:
        print(error)  # noqa: T201
