"""The page about a training: what it shows is what was measured, whatever labels and texts are called."""

import math
import re

import numpy as np
import pytest
from support.rendered import Page
from support.training import settings

from assay import metrics
from assay.labelled.rows import LabelledRows
from assay.train.report import render, smoothed
from assay.train.train import fit

EVIL = "<script>alert('x')</script>"


def page_of(report):
    """The page in the bundle."""
    return Page((report.out / "train_report.html").read_text())


def with_labels(rows, label_of):
    """The rows with labels made of their texts."""
    return LabelledRows(texts=rows.texts, labels=tuple(label_of(text) for text in rows.texts))


def confusion_of(html):
    """Counts by (true, predicted), from the titles of the cells."""
    found = re.findall(r"<title>(\w+) as (\w+): ([\d,]+) \(", html)
    return {(true, said): int(count) for true, said, count in found}


def test_the_page_says_what_was_trained(base, rows, tmp_path):
    """Metrics of the chosen step, its mark on the curves, sizes and balance, settings, versions and speed."""
    report = fit(settings(base, tmp_path / "b", epochs=4), *rows)
    page = page_of(report)
    assert page.headings == [
        "b, trained",
        "Training",
        "Validation",
        "Confusion matrix",
        "By label",
        "Worst classified",
        "Rows and labels",
        "Speed",
        "Settings",
        "Versions",
    ]
    assert f"weights of step {report.best.step} of 32, chosen by accuracy" in page.text
    assert f"{report.validation['accuracy']:.4f}" in page.text
    chosen = [cells for cells in page.cells if cells and cells[0].endswith("(chosen)")]
    assert [cells[0] for cells in chosen] == [f"{report.best.step} (chosen)"]
    assert ["cat", "32 (50.0%)", "16 (50.0%)"] in page.cells
    assert page.text.count("chosen\n") >= 3
    assert "learning_rate\n0.005\n" in re.sub(r"\s*\n\s*", "\n", page.text)


def test_the_confusion_matrix_is_of_the_saved_weights(base, rows, tmp_path):
    """Its cells add up to the validation rows, its diagonal to the accuracy that is reported."""
    report = fit(settings(base, tmp_path / "b", epochs=1, learning_rate=1e-3), *rows)
    counts = confusion_of((report.out / "train_report.html").read_text())
    assert sum(counts.values()) == 32
    right = sum(count for (true, said), count in counts.items() if true == said)
    assert right / 32 == pytest.approx(report.validation["accuracy"])


def test_the_page_stands_alone(base, rows, tmp_path):
    """No scripts, no handlers, nothing fetched; a policy that forbids it all the same."""
    page = page_of(fit(settings(base, tmp_path / "b", epochs=1), *rows))
    assert not {"script", "link", "iframe", "img"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in {"src", "href"}]
    assert any("default-src 'none'" in (value or "") for _, value in page.attributes)


def test_labels_and_texts_stay_text(base, rows, tmp_path):
    """Markup and control characters in labels, ids and texts break nothing."""
    labels = {"cat": EVIL, "dog": "\x00\x1b dog"}
    train, validation = (
        LabelledRows(
            texts=tuple(f"{text} {EVIL} \x1b" for text in part.texts),
            labels=tuple(labels[label] for label in part.labels),
            ids=tuple(f"{EVIL}{name}{row}" for row in range(part.num_rows)),
        )
        for name, part in zip("tv", rows, strict=True)
    )
    page = page_of(fit(settings(base, tmp_path / "b", epochs=1, learning_rate=1e-5), train, validation))
    assert "script" not in page.tags
    assert EVIL in page.text
    assert not re.search(r"[\x00-\x08\x1b]", page.text)


def test_the_worst_rows_are_the_wrong_ones_worst_first(base, rows, tmp_path):
    """Rows whose label was changed on purpose lead the list, with their ids and beginnings."""
    train, validation = rows
    flipped = {3, 10, 21}
    other = {"cat": "dog", "dog": "cat"}
    changed = LabelledRows(
        texts=tuple(f"{text} {'mat ' * 100}" for text in validation.texts),
        labels=tuple(
            other[label] if row in flipped else label for row, label in enumerate(validation.labels)
        ),
        ids=tuple(f"id {row}" for row in range(32)),
    )
    train = LabelledRows(texts=train.texts, labels=train.labels, ids=tuple(f"t{row}" for row in range(64)))
    page = page_of(fit(settings(base, tmp_path / "b", epochs=6), train, changed))
    at = next(index for index, cells in enumerate(page.cells) if cells[:2] == ["id", "true"])
    worst = page.cells[at + 1 : at + 4]
    assert {cells[0] for cells in worst} == {f"id {row}" for row in flipped}
    losses = [float(cells[3]) for cells in worst]
    assert losses == sorted(losses, reverse=True)
    assert all(len(cells[4]) == 200 and cells[4].endswith("…") for cells in worst)


def test_texts_can_be_left_out(base, rows, tmp_path):
    """With report_texts=False no word of a validation row is in the page."""
    chosen = settings(base, tmp_path / "b", epochs=1, learning_rate=1e-5, report_texts=False)
    page = page_of(fit(chosen, *rows))
    assert "Their texts are left out" in page.text
    assert not [text for text in rows[1].texts if text in page.text]


def test_the_page_of_a_multi_label_training(base, rows, tmp_path):
    """Precision and recall by label; rows with any label wrong; an empty label set is `none`."""
    split = [
        with_labels(part, lambda text: tuple(word for word in ("cat", "red") if word in text.split()))
        for part in rows
    ]
    page = page_of(fit(settings(base, tmp_path / "b", task="multi_label", epochs=2), *split))
    assert "Confusion matrix" not in page.headings
    counts = {cells[0]: cells[1] for cells in page.cells if len(cells) == 6 and cells[0] in {"cat", "red"}}
    holds = [len([1 for label in split[1].labels if name in label]) for name in ("cat", "red")]
    assert counts == {"cat": str(holds[0]), "red": str(holds[1])}


def test_the_page_of_a_regression(base, rows, tmp_path):
    """Predictions against targets, a dot a row; the largest errors; confusions of the whole scores."""
    split = [with_labels(part, lambda text: 1 + min(4.0, text.split().count("the") * 1.5)) for part in rows]
    chosen = settings(base, tmp_path / "b", task="regression", epochs=2, int_score_min=1, int_score_max=5)
    report = fit(chosen, *split)
    page = page_of(report)
    assert {"Predictions and targets", "Largest errors"} <= set(page.headings)
    html = (report.out / "train_report.html").read_text()
    assert html.count('<circle class="f0" opacity') == 32
    assert sum(confusion_of(html).values()) == 32
    assert "target" in page.text


def test_a_row_of_a_pair_shows_both_texts(base, tmp_path):
    """The two beginnings, with a bar between."""
    rows = LabelledRows(
        texts=tuple(f"the mat {index}" for index in range(48)),
        text_pairs=tuple(f"a hill {index}" for index in range(48)),
        labels=("cat", "dog", "dog") * 16,
    )
    report = fit(settings(base, tmp_path / "b", epochs=1), rows.take(range(36)), rows.take(range(36, 48)))
    assert re.search(r"the mat \d+ \| a hill \d+", page_of(report).text)


def test_a_training_that_stops_early_says_so(base, rows, tmp_path):
    """How many steps were planned."""
    chosen = settings(base, tmp_path / "b", epochs=50, patience=1, learning_rate=1e-9)
    assert "stopped early, 400 steps were planned" in page_of(fit(chosen, *rows)).text


def test_what_is_odd_about_the_rows_is_on_top(base, rows, tmp_path):
    """The warnings that the command printed are kept."""
    train, validation = rows
    doubled = LabelledRows(
        texts=(*train.texts, train.texts[0]),
        labels=(*train.labels, "dog" if train.labels[0] == "cat" else "cat"),
    )
    page = page_of(fit(settings(base, tmp_path / "b", epochs=1), doubled, validation))
    assert "2 training rows have the text of a row with another label" in page.text


def test_many_labels_and_long_histories_stay_readable(base, rows, tmp_path, monkeypatch):
    """50 labels: the most frequent confusions as a list. 5,000 steps: some 200 points a curve, NaN left out."""
    taken = []
    monkeypatch.setattr("assay.train.publish.render", lambda trained: taken.append(trained) or b"")
    labels = tuple(f"label {index % 50}" for index in range(150))
    texts = tuple(f"cat {index} mat" for index in range(150))
    everything = LabelledRows(texts=texts, labels=labels)
    chosen = settings(base, tmp_path / "b", epochs=1, near_duplicates=False)
    fit(chosen, everything.take(range(100)), everything.take(range(100, 150)))
    (trained,) = taken
    history = trained.history
    history.losses[:] = [1 / (1 + step) for step in range(5_000)]
    history.learning_rates[:] = history.gradient_norms[:] = history.losses
    history.validations[0].metrics["accuracy"] = math.nan
    html = render(trained).decode()
    page = Page(html)
    assert "Most frequent confusions" in page.headings
    assert "200 of 5,000 steps" in page.text
    assert "undefined" in page.text
    assert len(html) < 400_000


def test_smoothing_begins_at_the_first_value_and_follows():
    """No step up from zero; a constant stays; after a jump of a few spans the new level is reached."""
    assert smoothed([3.0, 3.0, 3.0], 10) == pytest.approx([3, 3, 3])
    values = [2.0] * 50 + [6.0] * 50
    found = smoothed(values, 10)
    assert found[0] == 2
    assert 2 < found[51] < 4
    assert found[-1] == pytest.approx(6, abs=0.01)


def test_the_saved_weights_give_the_losses_that_are_listed(base, rows, tmp_path, monkeypatch):
    """NLL over the page's logits is the chosen validation's, which the bundle reports."""
    taken = []
    monkeypatch.setattr("assay.train.publish.render", lambda trained: taken.append(trained) or b"")
    report = fit(settings(base, tmp_path / "b", epochs=4), *rows)
    probabilities = metrics.softmax(taken[0].logits_NC)
    assert metrics.nll(probabilities, taken[0].targets) == pytest.approx(report.validation["nll"], rel=1e-5)
    assert np.isfinite(taken[0].effort.flops_per_token)
