"""A step: gradients of passes added and clipped, one update; replayed on a GPU, the same."""

import numpy as np
import pytest
import torch
from support.configs import PACKED_CONFIGS
from support.training import PullTogether, animal_rows, settings, write_base
from torch import nn
from transformers import AutoModelForSequenceClassification

from assay.tasks import Task
from assay.train import gradients
from assay.train.gradients import Gradients
from assay.train.inputs import EncodedRows, filled_shape, host_batch
from assay.train.learner import Learner
from assay.train.model import make_classifier
from assay.train.objective import TaskLoss
from assay.train.optimizer import make_optimizer, parameter_groups, set_learning_rate
from assay.train.step import PassStepper
from assay.train.train import fit
from assay.train.world import World

CPU = torch.device("cpu")
LENGTHS = (3, 17, 9, 9, 30, 1, 12, 25)


def make_rows(*, seed=0):
    """Eight random rows of three labels."""
    rng = np.random.default_rng(seed)
    return EncodedRows(
        flat_ids=rng.integers(5, 120, size=sum(LENGTHS)).astype(np.int32),
        offsets=np.concatenate([[0], np.cumsum(LENGTHS)]).astype(np.int64),
        second_starts=None,
        targets=(np.arange(len(LENGTHS)) % 3).astype(np.int64),
        weights=np.ones(len(LENGTHS), dtype=np.float32),
        num_truncated=0,
    )


def make(
    device=CPU,
    *,
    family="bert",
    dropout=0.0,
    max_norm=1.0,
    records=False,
    dtype=torch.float32,
    objective=None,
    **named,
):
    """(model, stepper, classifier) with random weights, learning rate 0.01 and no decay; dropout for BERT alone."""
    torch.manual_seed(3)
    config = PACKED_CONFIGS[family]
    changes = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    config = type(config).from_dict({**config.to_dict(), **(changes if family == "bert" else {})})
    model = AutoModelForSequenceClassification.from_config(config).to(device)
    classifier = make_classifier(model, dtype=dtype, gradient_checkpointing=False)
    chosen = settings("base", "out", weight_decay=0.0, **named)
    world = World(rank=0, world_size=1, local_rank=0, device=device)
    held = Gradients(dict(classifier.named_parameters()), world=world, table=classifier.token_table)
    groups = parameter_groups(model, chosen)
    optimizer = make_optimizer(groups, held.own, device, can_record=records)
    set_learning_rate(optimizer, 0.01)
    stepper = PassStepper(
        Learner(classifier=classifier, optimizer=optimizer, gradients=held),
        objective or TaskLoss(task=Task.SINGLE_LABEL),
        world=world,
        max_gradient_norm=max_norm,
        records=records,
    )
    classifier.train()
    return model, stepper, classifier


def run(stepper, classifier, rows, pieces, *, seed=1, shape=None):
    """Passes over pieces of the rows, and an update; loss and norm."""
    total = float(sum(len(piece) for piece in pieces))
    with stepper.stream():
        for number, piece in enumerate(pieces):
            batch = host_batch(rows, np.array(piece), classifier.layout, total_weight=total, shape=shape)
            stepper.run_pass(batch, seed=seed + number, is_last=number == len(pieces) - 1)
        loss, norm = stepper.update()
    return float(loss), float(norm)


@pytest.mark.parametrize("max_norm", [0.05, 1e6])
@pytest.mark.parametrize("bucket_bytes", [(1_000, 1_000), (8 << 20, 64 << 20)])
def test_a_step_is_clip_grad_norm_and_adamw(max_norm, bucket_bytes, monkeypatch):
    """Whatever the buckets are: gradients added over passes, the norm before clipping, torch's own update."""
    monkeypatch.setattr(gradients, "BUCKET_BYTES", bucket_bytes)
    rows = make_rows()
    model, stepper, classifier = make(max_norm=max_norm)
    plain, _, same = make()
    plain.zero_grad(set_to_none=True)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=0.01, weight_decay=0.0)
    for _ in range(3):
        loss, norm = run(stepper, classifier, rows, [[0, 1, 2], [3, 4], [5, 6, 7]])
        optimizer.zero_grad()
        batch = host_batch(rows, np.arange(8), same.layout, total_weight=8.0)
        logits = same(batch, torch.zeros(1, dtype=torch.int64))
        expected = TaskLoss(task=Task.SINGLE_LABEL)(logits, batch.targets, batch.weights_S)
        expected.backward()
        expected_norm = nn.utils.clip_grad_norm_(plain.parameters(), max_norm)
        optimizer.step()
        assert loss == pytest.approx(expected.item(), rel=1e-5)
        assert norm == pytest.approx(float(expected_norm), rel=1e-4)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        # what has no gradient but rounding (biases of keys) is moved by it
        if "key.bias" not in name:
            torch.testing.assert_close(
                ours, theirs, rtol=1e-2, atol=5e-4, msg=lambda said, name=name: name + said
            )


def test_the_head_is_summed_first_whatever_the_optimizer_groups(monkeypatch):
    """Its gradient is there first; with layer decay the optimizer's groups begin with it, not end."""
    monkeypatch.setattr(gradients, "BUCKET_BYTES", (1, 1))
    model, stepper, _ = make(layer_decay=0.9)
    held = stepper._gradients
    buckets = [bucket.gradients.data_ptr() for bucket in (*held._shared, *held._whole)]
    places = [buckets.index(each.grad.data_ptr()) for each in model.parameters()]
    table, *others = places  # of token embeddings, the model's first and the last to be summed
    assert table == len(places) - 1
    assert others == sorted(others, reverse=True)


def test_a_pass_of_no_weight_changes_nothing():
    """What a rank without rows runs, so that it takes part in the sum."""
    rows = make_rows()
    found = []
    for idle in (False, True):
        model, stepper, classifier = make()
        if idle:
            batch = host_batch(rows, np.array([5]), classifier.layout, total_weight=np.inf)
            stepper.run_pass(batch, seed=1, is_last=False)
        figures = run(stepper, classifier, rows, [[0, 1, 2]])
        found.append((figures, [each.detach().clone() for each in model.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))


def test_dropout_depends_on_the_seed_of_the_pass():
    """The same seed draws the same, another one another; the generator before does not matter."""
    rows, losses = make_rows(), []
    for seed in (1, 1, 2):
        _, stepper, classifier = make(dropout=0.3)
        torch.rand(len(losses))
        losses.append(run(stepper, classifier, rows, [list(range(8))], seed=seed)[0])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("pieces", [[[0, 1, 2], [3, 4], [5, 6, 7]], [[0, 1, 2, 3, 4, 5, 6, 7]]])
def test_a_cut_step_has_the_gradients_of_all_its_passes_at_once(pieces):
    """Dropout and all: each pass is replayed with the masks that it was first run with."""
    rows = make_rows()
    _, stepper, classifier = make(dropout=0.3, objective=PullTogether())
    _, _, same = make(dropout=0.3)
    same.zero_grad(set_to_none=True)
    passes = [host_batch(rows, np.array(piece), same.layout, total_weight=8.0) for piece in pieces]
    outputs = []
    for number, batch in enumerate(passes):
        torch.manual_seed(1 + number)
        outputs.append(same(batch, torch.full((1,), 1 + number)))
    whole = (torch.cat([getattr(each, name) for each in passes]) for name in ("targets", "weights_S"))
    expected = PullTogether()(torch.cat(outputs), *whole)
    expected.backward()
    expected_norm = nn.utils.clip_grad_norm_(same.parameters(), 1e6)
    assert run(stepper, classifier, rows, pieces) == pytest.approx(
        (expected.item(), float(expected_norm)), rel=1e-4
    )


# ---------------------------------------------------------------- on a GPU

SHAPE = filled_shape(sum(LENGTHS), num_documents=8, max_seqlen=32)


@pytest.mark.gpu
@pytest.mark.parametrize(("family", "atol"), [("bert", 0.0), ("modernbert", 2e-2), ("modernbert-mean", 2e-2)])
def test_replayed_passes_have_the_losses_of_eager_ones(family, atol):
    """Without dropout, in bf16: ten steps of recorded passes and updates against the same ones run."""
    device = torch.device("cuda", 0)
    curves = []
    for records in (False, True):
        _, stepper, classifier = make(device, family=family, records=records, dtype=torch.bfloat16)
        curves.append(
            [
                run(stepper, classifier, make_rows(seed=number % 2), [list(range(8))], shape=SHAPE)
                for number in range(10)
            ]
        )
        assert bool(stepper._recorded) == records
    # ModernBERT's losses end at 0.01, where sums in another order show
    np.testing.assert_allclose(curves[1], curves[0], rtol=3e-2, atol=atol)
    assert curves[1][-1][0] < curves[1][0][0]


@pytest.mark.gpu
def test_replays_add_up_passes_of_a_step():
    """Two recorded passes of four rows, filled up, are one of eight."""
    device, shape = torch.device("cuda", 0), filled_shape(100, num_documents=8, max_seqlen=32)
    found = []
    for pieces in ([list(range(8))], [[0, 1, 2, 3], [4, 5, 6, 7]]):
        _, stepper, classifier = make(device, records=True, dtype=torch.bfloat16)
        chosen = SHAPE if len(pieces) == 1 else shape
        found.append([run(stepper, classifier, make_rows(), pieces, shape=chosen) for _ in range(6)])
    np.testing.assert_allclose(found[1], found[0], rtol=3e-2)


@pytest.mark.gpu
def test_replays_draw_new_masks_each_step():
    """With dropout, a learning rate of 0 and one batch, each replay has another loss; a seed seen before, its own."""
    device = torch.device("cuda", 0)
    _, stepper, classifier = make(device, dropout=0.3, records=True, dtype=torch.bfloat16)
    set_learning_rate(stepper._optimizer, 0.0)
    losses = [
        run(stepper, classifier, make_rows(), [list(range(8))], seed=seed, shape=SHAPE)[0]
        for seed in (1, 2, 3, 4, 5, 6, 4)
    ]
    assert len(set(losses[2:6])) == 4
    assert losses[6] == losses[3]


@pytest.mark.gpu
def test_bf16_training_learns(tmp_path):
    """The animals, recorded passes and all; weights are saved in float32."""
    base, everything = write_base(tmp_path / "base"), animal_rows(96, seed=1)
    report = fit(
        settings(base, tmp_path / "b", precision="bf16", epochs=10),
        everything.take(range(64)),
        everything.take(range(64, 96)),
    )
    assert report.validation["accuracy"] >= 0.85


@pytest.mark.gpu
def test_a_resumed_gpu_training_goes_on_where_it_was(tmp_path):
    """Without dropout the curve after a stop is that of an uninterrupted training, within bf16."""
    base, everything = write_base(tmp_path / "base"), animal_rows(96, seed=1)
    rows = everything.take(range(64)), everything.take(range(64, 96))
    values = {
        "dropout": 0.0,
        "epochs": 4,
        "evaluate_every": 4,
        "checkpoint_minutes": 1e6,
        "learning_rate": 1e-3,
    }
    calm = fit(settings(base, tmp_path / "calm", **values), *rows)

    def stop(progress):
        if progress.step >= 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(settings(base, tmp_path / "b", **values), *rows, on_progress=stop)
    report = fit(settings(base, tmp_path / "b", **values, resume=True), *rows)
    assert len(report.history.losses) == 32
    np.testing.assert_allclose(report.history.losses, calm.history.losses, rtol=3e-2)
    assert [each.step for each in report.history.validations] == list(range(4, 33, 4))
