"""Siamese training: from pairs of texts to a bundle that gives their probabilities."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from support.configs import PACKED_CONFIGS
from support.training import TINY_BERT, pair_rows, settings, siamese_settings, write_base

from assay.errors import InputError, UsageError
from assay.labelled.labels import to_targets
from assay.metrics import validation_metrics
from assay.score.classifier import load
from assay.siamese.pairs import load_siamese
from assay.tasks import Task
from assay.train.pair_objective import PairObjective
from assay.train.train import fit, train


@pytest.fixture
def sides():
    """Pairs to train on and others to validate on."""
    rows = pair_rows(120, seed=3)
    cut = rows.num_rows * 3 // 4
    return rows.take(range(cut)), rows.take(range(cut, rows.num_rows))


@pytest.mark.parametrize("pooling", ["mean", "attention", "first_token"])
def test_a_trained_bundle_gives_what_training_measured(pooling, base, sides, tmp_path):
    """The metrics of the best validation, from the published folder alone; and what was to be learned is."""
    chosen = siamese_settings(
        base, tmp_path / "b", vector_pooling=pooling, epochs=12 if pooling == "mean" else 2, best_by="nll"
    )
    report = fit(chosen, *sides)
    model = load_siamese(tmp_path / "b", num_threads=1)
    probabilities = model.probabilities(zip(sides[1].texts, sides[1].text_pairs, strict=True))
    targets = to_targets(sides[1].labels, Task.SINGLE_LABEL, model.labels)
    found = validation_metrics(Task.SINGLE_LABEL, probabilities, targets, None)
    assert found["nll"] == pytest.approx(report.validation["nll"], rel=1e-4)
    if pooling == "mean":
        assert found["auc"] > 0.8, found
    assert model.bundle.embedder.pooling("auto") == pooling
    assert np.mean(report.history.losses[-5:]) < np.mean(report.history.losses[:5])


@pytest.mark.parametrize("family", ["roberta", "distilbert", "modernbert", "electra"])
def test_other_families_are_published_as_they_were_trained(family, sides, tmp_path):
    """Their own names of weights, positions and pooling: the bundle gives what training measured."""
    config = PACKED_CONFIGS[family]
    changes = {"pad_token_id": 0, "vocab_size": TINY_BERT.vocab_size}
    base = write_base(tmp_path / "base", type(config).from_dict({**config.to_dict(), **changes}))
    report = fit(siamese_settings(base, tmp_path / "b", epochs=1, vector_pooling="attention"), *sides)
    model = load_siamese(tmp_path / "b", num_threads=1)
    probabilities = model.probabilities(zip(sides[1].texts, sides[1].text_pairs, strict=True))
    targets = to_targets(sides[1].labels, Task.SINGLE_LABEL, model.labels)
    found = validation_metrics(Task.SINGLE_LABEL, probabilities, targets, None)
    assert found["nll"] == pytest.approx(report.validation["nll"], rel=1e-4)


def test_training_begins_and_goes_on_alike(base, sides, tmp_path):
    """A training that was interrupted has the losses of one that was not."""
    values = {"epochs": 2, "evaluate_every": 4, "style": "full", "vector_pooling": "attention"}
    calm = fit(siamese_settings(base, tmp_path / "calm", **values), *sides)

    def stop(progress):
        if progress.step == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(siamese_settings(base, tmp_path / "b", **values), *sides, on_progress=stop)
    report = fit(siamese_settings(base, tmp_path / "b", **values, resume=True), *sides)
    np.testing.assert_allclose(report.history.losses, calm.history.losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"task": "multi_label"}, "a Siamese model has one label a pair"),
        ({"parallel": "fsdp"}, "compared over all ranks"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(change, said, base, tmp_path):
    """One line with the way out."""
    with pytest.raises(UsageError, match=said):
        siamese_settings(base, tmp_path / "b", **change)


def test_single_texts_are_refused(base, rows, tmp_path):
    """Before anything is trained."""
    with pytest.raises(InputError, match=r"rows of single texts.*text_pair_column"):
        fit(siamese_settings(base, tmp_path / "b"), *rows)


# ---------------------------------------------------------------- the loss

D = 4


def step_of(labels, texts=None, belongings=None, *, seed=0, weights=None):
    """Outputs, targets and weights of a step: random vectors, temperature 0.5; belongings: both books, both authors."""
    generator = torch.Generator().manual_seed(seed)
    num_rows = len(labels)
    vectors = F.normalize(torch.randn(2, num_rows, D, generator=generator), dim=2)
    logits = torch.randn(num_rows, 2, generator=generator)
    parts = [logits, *vectors, torch.full((num_rows, 1), 0.5), torch.zeros_like(logits)]
    outputs = torch.cat(parts, dim=1).requires_grad_()
    texts = texts or [[2 * row, 2 * row + 1] for row in range(num_rows)]
    known = [[label, *pair] for label, pair in zip(labels, texts, strict=True)]
    belongings = [[-1] * 4] * num_rows if belongings is None else belongings
    targets = torch.tensor([[*row, *more] for row, more in zip(known, belongings, strict=True)])
    weights = torch.tensor(weights or [1.0] * num_rows)
    return outputs, targets, weights / weights.sum()


def info_nce(outputs, anchors, candidates_of):
    """The mean of both directions over anchors, in plain Python; `candidates_of` gives rows beside the own."""
    first, second = outputs.detach()[:, 2 : 2 + D], outputs.detach()[:, 2 + D : 2 + 2 * D]
    losses = []
    for one, two in ((first, second), (second, first)):
        for row in anchors:
            shares = [float(one[row] @ two[other]) / 0.5 for other in [row, *candidates_of(row)]]
            losses.append(float(np.log(np.sum(np.exp(shares))) - shares[0]))
    return np.mean(losses)


def objective(**changes):
    """InfoNCE of weight 1 unless told otherwise."""
    return PairObjective(**{"dimension": D, "contrastive": "infonce", "weight": 1.0, **changes})


def contrastive(outputs, targets, weights, **changes):
    """The contrastive part of the loss alone."""
    whole, plain = (objective(weight=weight, **changes) for weight in (1.0, 0.0))
    return float((whole(outputs, targets, weights) - plain(outputs, targets, weights)).detach())


def test_positive_rows_are_told_from_all_other_rows():
    """InfoNCE in both directions; second texts of negative rows are candidates, and no row but positive ones has it."""
    outputs, targets, weights = step_of([1, 0, 1, 0, 1])
    expected = info_nce(outputs, [0, 2, 4], lambda row: [other for other in range(5) if other != row])
    assert contrastive(outputs, targets, weights) == pytest.approx(expected, rel=1e-5)


def test_a_text_that_occurs_again_is_no_negative():
    """Row 1 has the second text of row 0, row 3 its first: neither is held against row 0."""
    texts = [[0, 1], [2, 1], [4, 5], [6, 0]]
    outputs, targets, weights = step_of([1, 0, 0, 0], texts)
    first, second = outputs.detach()[:, 2 : 2 + D], outputs.detach()[:, 2 + D : 2 + 2 * D]

    def loss(one, two, others):
        shares = [float(one[0] @ two[other]) / 0.5 for other in [0, *others]]
        return np.log(np.sum(np.exp(shares))) - shares[0]

    expected = (loss(first, second, [2]) + loss(second, first, [1, 2, 3])) / 2
    assert contrastive(outputs, targets, weights) == pytest.approx(expected, rel=1e-5)


def test_a_step_without_positives_has_no_contrastive_loss():
    """And no gradient that is not a number."""
    outputs, targets, weights = step_of([0, 0, 0])
    assert contrastive(outputs, targets, weights) == 0.0
    objective()(outputs, targets, weights).backward()
    assert torch.isfinite(outputs.grad).all()


def test_a_row_of_no_weight_changes_nothing():
    """What a rank without rows runs is neither anchor nor candidate."""
    outputs, targets, weights = step_of([1, 0, 1, 1], weights=[1.0, 1.0, 1.0, 0.0])
    for changes in ({}, {"contrastive": "supcon"}):
        loss = objective(**changes)
        expected = loss(outputs[:3], targets[:3], weights[:3])
        torch.testing.assert_close(loss(outputs, targets, weights), expected)


def test_the_temperature_is_learned():
    """It has a gradient: downwards where positives are nearest already."""
    vectors = torch.eye(4)
    logits, temperature = torch.zeros(4, 2), torch.full((4, 1), 0.5, requires_grad=True)
    outputs = torch.cat([logits, vectors, vectors, temperature, logits], dim=1)
    targets = torch.tensor([[1, 2 * row, 2 * row + 1, -1, -1, -1, -1] for row in range(4)])
    objective()(outputs, targets, torch.full((4,), 0.25)).backward()
    assert float(temperature.grad.sum()) > 0


BOOKS = [[0, 0, 0, 0], [0, 1, 0, 0], [2, 2, 1, 1], [3, 0, 1, 0]]
"""Both books and both authors of four rows."""


def test_texts_of_the_anchor_s_book_are_not_negatives():
    """By choice its author's are not either; the count says how many are left, own positives not among them."""
    outputs, targets, weights = step_of([1, 0, 1, 0], None, BOOKS)
    compared = objective().compare(targets, weights)
    # texts 0 to 3 are first ones, 4 to 7 second ones
    assert compared.negative_TT[0].nonzero().ravel().tolist() == [5, 6]
    assert compared.negative_TT[2].nonzero().ravel().tolist() == [4, 5, 7]
    assert compared.anchors_T.nonzero().ravel().tolist() == [0, 2, 4, 6]
    assert float(objective().num_negatives(targets, weights)) == (2 + 3 + 2 + 3) / 4
    stricter = objective(keeps_authors_apart=False).compare(targets, weights)
    assert stricter.negative_TT[0].nonzero().ravel().tolist() == [6]
    first, second = outputs.detach()[:, 2 : 2 + D], outputs.detach()[:, 2 + D : 2 + 2 * D]

    def loss(one, two, row, others):
        shares = [float(one[row] @ two[other]) / 0.5 for other in [row, *others]]
        return np.log(np.sum(np.exp(shares))) - shares[0]

    by_hand = [
        loss(first, second, 0, [1, 2]),
        loss(first, second, 2, [0, 1, 3]),
        loss(second, first, 0, [2, 3]),
        loss(second, first, 2, [0, 1, 3]),
    ]
    assert contrastive(outputs, targets, weights) == pytest.approx(np.mean(by_hand), rel=1e-5)


@pytest.mark.parametrize("author_weight", [0.0, 0.5])
def test_supcon_pulls_a_book_and_an_author_together(author_weight):
    """Khosla's loss with weights, text by text in plain Python."""
    outputs, targets, weights = step_of([1, 0, 1, 0], None, BOOKS)
    found = outputs.detach()
    vectors = torch.cat([found[:, 2 : 2 + D], found[:, 2 + D : 2 + 2 * D]]).numpy()
    books = [row[0] for row in BOOKS] + [row[1] for row in BOOKS]
    authors = [row[2] for row in BOOKS] + [row[3] for row in BOOKS]
    losses = []
    for anchor in range(8):
        others = [other for other in range(8) if other != anchor]
        similarity = {other: vectors[anchor] @ vectors[other] / 0.5 for other in others}
        total = np.log(sum(np.exp(each) for each in similarity.values()))
        weight = {
            other: 1.0
            if books[other] == books[anchor]
            else author_weight * (authors[other] == authors[anchor])
            for other in others
        }
        if sum(weight.values()):
            shares = sum(weight[other] * (similarity[other] - total) for other in others)
            losses.append(-shares / sum(weight.values()))
    loss = contrastive(outputs, targets, weights, contrastive="supcon", author_weight=author_weight)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_negatives_are_counted_step_by_step(base, sides, tmp_path):
    """In the history and in metrics.jsonl: with 8 rows a step, at most 7 others each."""
    report = fit(siamese_settings(base, tmp_path / "b", epochs=1), *sides)
    counts = report.history.num_negatives
    assert len(counts) == len(report.history.losses)
    assert max(counts) == 7.0
    lines = [json.loads(line) for line in (tmp_path / "b/metrics.jsonl").read_text().splitlines()]
    assert [line["num_negatives"] for line in lines if "loss" in line] == counts


def test_books_and_authors_are_read_from_columns(base, sides, tmp_path, save_rows):
    """Rows from a file whose columns say where texts are from; a row without an author has none."""
    paths = []
    for name, rows in zip(("train", "validation"), sides, strict=True):
        books = [f"{name} {number // 6}" for number in range(rows.num_rows)]
        authors = [None if number == 0 else f"author {number // 12}" for number in range(rows.num_rows)]
        columns = {
            "pair": rows.text_pairs,
            "book1": books,
            "book2": books,
            "author1": authors,
            "author2": authors,
        }
        paths.append(save_rows(name, rows, **columns))
    chosen = siamese_settings(
        base,
        tmp_path / "b",
        data=(paths[0],),
        validation_data=(paths[1],),
        text_pair_column="pair",
        epochs=1,
        contrastive="supcon",
        book_columns=("book1", "book2"),
        author_columns=("author1", "author2"),
        rows_per_book=3,
        books_per_author=2,
    )
    report = train(chosen)
    # a step of 8 rows holds runs of three of a book, of which the other texts are not negatives; shuffled, 13 are
    assert np.mean(report.history.num_negatives) < 11.5
    with pytest.raises(InputError, match=r"book_columns names 'book1'; the rows have no such column"):
        fit(replace(chosen, out=str(tmp_path / "c")), *sides)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"book_columns": ("book1",)}, "a pair has two texts; name two columns"),
        ({"contrastive": "supcon"}, "contrastive=supcon needs book_columns"),
        ({"rows_per_book": 2}, "rows_per_book needs book_columns"),
        ({"not_negatives": "same_author"}, "not_negatives=same_author needs author_columns"),
        ({"books_per_author": 2}, "books_per_author needs author_columns"),
    ],
)
def test_what_needs_columns_says_so(change, said, base, tmp_path):
    """One line with the way out."""
    with pytest.raises(UsageError, match=said):
        siamese_settings(base, tmp_path / "b", **change)


def test_an_angular_head_has_its_margin_in_training_alone(base, sides, tmp_path):
    """Saved with scale and margin; what the bundle gives is what training measured without the margin."""
    chosen = siamese_settings(
        base,
        tmp_path / "b",
        pair_head="arcface",
        arcface_scale=8.0,
        arcface_margin=0.3,
        epochs=12,
        best_by="nll",
    )
    report = fit(chosen, *sides)
    model = load_siamese(tmp_path / "b", num_threads=1)
    assert (model.bundle.head.kind, model.bundle.head.scale, model.bundle.head.margin) == (
        "arcface",
        8.0,
        0.3,
    )
    probabilities = model.probabilities(zip(sides[1].texts, sides[1].text_pairs, strict=True))
    targets = to_targets(sides[1].labels, Task.SINGLE_LABEL, model.labels)
    found = validation_metrics(Task.SINGLE_LABEL, probabilities, targets, None)
    assert found["nll"] == pytest.approx(report.validation["nll"], rel=1e-4)
    assert found["auc"] > 0.8, found


@pytest.mark.parametrize("cosine", [0.9, 0.0, -0.999])
def test_the_margin_widens_the_angle_of_the_right_label(cosine):
    """ArcFace's cos(angle + margin); past half a turn a line that goes on falling."""
    outputs, targets, weights = step_of([1])
    outputs = outputs.detach()
    outputs[0, :2] = torch.tensor([4.0, 10 * cosine])
    angle = np.arccos(cosine) + 0.25
    moved = np.cos(angle) if angle < np.pi else cosine - 0.25 * np.sin(0.25)
    expected = F.cross_entropy(torch.tensor([[4.0, 10 * moved]]), torch.tensor([1]))
    loss = objective(weight=0.0, angular=(10.0, 0.25))(outputs, targets, weights)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_the_distance_to_a_teacher_counts():
    """T^2 KL of the softened probabilities, on top of the cross entropy; none where both agree."""
    outputs, targets, weights = step_of([1, 0, 1])
    outputs = outputs.detach()
    outputs[:, -2:] = torch.tensor([[2.0, -1.0], [0.0, 3.0], [1.0, 1.0]])
    whole, plain = (
        objective(weight=0.0, distillation=each)(outputs, targets, weights) for each in ((0.5, 3.0), None)
    )
    ours, theirs = (torch.softmax(each / 3, dim=1) for each in (outputs[:, :2], outputs[:, -2:]))
    expected = 0.5 * 9 * (theirs * (theirs / ours).log()).sum(dim=1).mean()
    assert float(whole - plain) == pytest.approx(float(expected), rel=1e-4)
    outputs[:, -2:] = outputs[:, :2]
    torch.testing.assert_close(
        objective(weight=0.0, distillation=(0.5, 3.0))(outputs, targets, weights), plain
    )


def test_a_student_learns_what_its_teacher_says(base, sides, tmp_path):
    """A cross-encoder of the other labels' opinion: with its weight the student follows it, not the rows."""
    turned = tuple("1" if label == "0" else "0" for label in sides[0].labels)
    teacher = tmp_path / "teacher"
    fit(settings(base, teacher, epochs=1), replace(sides[0], labels=turned), sides[1])
    asked = []
    for weight in (1e-6, 20.0):
        chosen = siamese_settings(
            base, tmp_path / f"b{weight}", teacher=str(teacher), distillation_weight=weight, epochs=6
        )
        fit(chosen, *sides)
        model = load_siamese(tmp_path / f"b{weight}", num_threads=1)
        asked.append(model.probabilities(zip(sides[0].texts, sides[0].text_pairs, strict=True))[:, 1])
    table = load(teacher, num_threads=1).predict(list(sides[0].texts), list(sides[0].text_pairs))
    theirs = np.array(table["prob_1"])
    distances = [np.abs(each - theirs).mean() for each in asked]
    assert distances[1] < 0.5 * distances[0], distances


def test_a_teacher_of_other_labels_is_refused(base, sides, rows, tmp_path):
    """And one of single texts, each in one line."""
    fit(settings(base, tmp_path / "animals", epochs=1), *rows)
    named = replace(sides[0], labels=tuple(f"label {each}" for each in sides[0].labels))
    others = replace(sides[1], labels=tuple(f"label {each}" for each in sides[1].labels))
    fit(settings(base, tmp_path / "named", epochs=1), named, others)
    for teacher, said in (
        ("animals", "takes single texts"),
        ("named", "its labels are label 0, label 1 and those of"),
    ):
        chosen = siamese_settings(base, tmp_path / "b", teacher=str(tmp_path / teacher))
        with pytest.raises(UsageError, match=said):
            fit(chosen, *sides)


def test_words_and_style_join_the_network(base, sides, tmp_path):
    """The bundle weighs them on the validation rows and gives the metrics that training printed."""
    chosen = siamese_settings(base, tmp_path / "b", epochs=2, evidence="words")
    report = fit(chosen, *sides)
    assert report.joined is not None
    assert "with the evidence of words and style: accuracy" in str(report)
    model = load_siamese(tmp_path / "b", num_threads=1)
    probabilities = model.probabilities(zip(sides[1].texts, sides[1].text_pairs, strict=True))
    targets = to_targets(sides[1].labels, Task.SINGLE_LABEL, model.labels)
    found = validation_metrics(Task.SINGLE_LABEL, probabilities, targets, None)
    assert found["nll"] == pytest.approx(report.joined["nll"], rel=1e-4)
    assert report.joined["nll"] < report.validation["nll"]
    page = (tmp_path / "b/train_report.html").read_text()
    assert "rare words" in page


def test_pairs_of_one_label_have_no_evidence_and_say_so(base, sides, tmp_path):
    """The training goes on without it."""
    one_label = sides[1].take([row for row, label in enumerate(sides[1].labels) if label == "1"])
    said = []
    report = fit(
        siamese_settings(base, tmp_path / "b", epochs=1, evidence="words"),
        sides[0],
        one_label,
        on_message=said.append,
    )
    assert report.joined is None
    assert any("all validation pairs have one label" in line for line in said)


def test_a_book_on_both_sides_is_refused(base, sides, tmp_path):
    """What chooses the checkpoint, and is calibrated by, would know the book; the rows are counted, one is named."""
    columns = ("one", "two")
    train, validation = (
        replace(
            rows,
            keys={name: tuple(f"{name}{row % 3}" for row in range(rows.num_rows)) for name in columns},
        )
        for rows in sides
    )
    chosen = siamese_settings(base, tmp_path / "b", epochs=1, book_columns=columns)
    with pytest.raises(
        InputError,
        match=rf"{validation.num_rows} of {validation.num_rows} validation pairs are of books of training pairs too,"
        r" such as .*one0.*; a metric on them means nothing; move whole books, or leave book_columns out",
    ):
        fit(chosen, train, validation)


def test_a_side_without_text_is_refused(base, sides, tmp_path):
    """White space has no style and no words; pairs of training and of validation are named."""
    blank = replace(sides[0], texts=("  \n", *sides[0].texts[1:]))
    with pytest.raises(
        InputError, match=r"1 of \d+ training pairs have a side without text; .* drop these rows"
    ):
        fit(siamese_settings(base, tmp_path / "b", epochs=1), blank, sides[1])
    blank = replace(sides[1], text_pairs=(*sides[1].text_pairs[:-1], ""))
    with pytest.raises(InputError, match="validation pairs have a side without text"):
        fit(siamese_settings(base, tmp_path / "b", epochs=1), sides[0], blank)


def test_rare_words_are_counted_by_book_where_columns_name_it(base, sides, tmp_path):
    """Without columns each text is a book of its own."""
    books = {name: tuple("ab"[row % 2] for row in range(sides[0].num_rows)) for name in ("one", "two")}
    told = (
        replace(sides[0], keys=books),
        replace(sides[1], keys=dict.fromkeys(books, ("c",) * sides[1].num_rows)),
    )
    counted = []
    for number, (rows, columns) in enumerate([(sides, ()), (told, ("one", "two"))]):
        out = tmp_path / str(number)
        fit(siamese_settings(base, out, epochs=1, evidence="words", book_columns=columns), *rows)
        evidence = load_siamese(out, num_threads=1).bundle.evidence
        counted.append(evidence.evidence.lexicon.words_by_book.num_documents)
    assert counted == [len({*sides[0].texts, *sides[0].text_pairs}), 2]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "cut", [{"batch_size": 16, "gradient_accumulation": 2}, {"batch_size": 32, "max_batch_tokens": 256}]
)
def test_a_cut_step_is_a_whole_one_on_a_gpu(cut, precision, base, sides, tmp_path):
    """Losses and gradient norms of the first steps, whose negatives are those of all passes."""
    values = {"epochs": 2, "dropout": 0.0, "precision": precision}
    whole = fit(siamese_settings(base, tmp_path / "whole", batch_size=32, **values), *sides).history
    parts = fit(siamese_settings(base, tmp_path / "parts", **cut, **values), *sides).history
    tolerance = 1e-4 if precision == "fp32" else 2e-2
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=tolerance)
    np.testing.assert_allclose(parts.gradient_norms, whole.gradient_norms, rtol=10 * tolerance)
