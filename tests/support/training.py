"""What tests of training share: a tiny encoder, rows that it learns, settings for both, a plain loop, other parts."""

import random

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own spelling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, AutoTokenizer, BertConfig, PreTrainedTokenizerFast

from assay.labelled.labels import label_names, to_targets
from assay.labelled.rows import LabelledRows
from assay.train.base import load_model
from assay.train.batches import ShuffledSampler, learning_rate_factor
from assay.train.parts import Parts
from assay.train.settings import TrainSettings

WORDS = ("cat", "dog", "the", "a", "sat", "ran", "on", "under", "mat", "hill", "red", "blue", "saw", "heard")
SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
TINY_BERT = BertConfig(
    vocab_size=len(SPECIALS) + len(WORDS),
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=64,
)
"""2 layers, 32 wide."""


def write_base(folder, config=TINY_BERT, words=WORDS):
    """An encoder without a head: random weights of this config, and a tokenizer of these words."""
    vocabulary = {word: index for index, word in enumerate((*SPECIALS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


def animal_rows(num_rows, *, seed, labels=("cat", "dog")):
    """Sentences whose label is the animal in them; no two alike."""
    rng = random.Random(seed)
    texts = {}
    while len(texts) < num_rows:
        label = labels[len(texts) % len(labels)]
        words = rng.choices(WORDS[2:], k=rng.randint(4, 14))
        words.insert(rng.randrange(len(words)), label)
        texts.setdefault(" ".join(words), label)
    return LabelledRows(texts=tuple(texts), labels=tuple(texts.values()))


def settings(base, out, **changes):
    """Settings under which the tiny encoder learns the animals in a second."""
    values = {
        "base": str(base),
        "out": str(out),
        "data": ("rows",),
        "epochs": 6,
        "batch_size": 8,
        "learning_rate": 5e-3,
        "max_length": 32,
        "num_threads": 1,
        "near_duplicates": False,
    }
    return TrainSettings(**{**values, **changes})


def plain_training(chosen, rows, *, loss_of=None, steps=None, make_optimizer=torch.optim.AdamW):
    """Losses and gradient norms of a loop that anyone would write: padded batches, `labels=`, AdamW, clipping.

    `loss_of` takes logits, targets and weights; `steps` are the rows of each.
    """
    torch.manual_seed(chosen.seed)
    names = label_names(rows.labels, chosen.task)
    model = load_model(chosen, names).train()
    tokenizer = AutoTokenizer.from_pretrained(chosen.base)
    targets = torch.from_numpy(to_targets(rows.labels, chosen.task, names))
    matrices = [each for each in model.parameters() if each.ndim > 1]
    vectors = [each for each in model.parameters() if each.ndim == 1]
    optimizer = make_optimizer(
        [{"params": matrices, "weight_decay": chosen.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    )
    size = chosen.batch_size * chosen.gradient_accumulation
    sampler = ShuffledSampler(num_rows=rows.num_rows, rows_per_step=size, seed=chosen.seed)
    steps = steps or [each for epoch in range(chosen.epochs) for each in sampler.epoch_steps(epoch)]
    losses, norms = [], []
    for number, step in enumerate(steps):
        factor = learning_rate_factor(
            number, num_steps=len(steps), num_warmup_steps=round(chosen.warmup_share * len(steps))
        )
        for group in optimizer.param_groups:
            group["lr"] = chosen.learning_rate * factor
        taken = rows.take(step.tolist())
        texts = (
            [list(taken.texts)] if taken.text_pairs is None else [list(taken.texts), list(taken.text_pairs)]
        )
        batch = tokenizer(*texts, padding=True, return_tensors="pt")
        if "token_type_ids" in batch and getattr(model.config, "type_vocab_size", 0) < 2:
            del batch["token_type_ids"]
        optimizer.zero_grad()
        step_targets = targets[torch.from_numpy(step)]
        outputs = model(**batch, labels=step_targets)
        weights = torch.full((len(step),), 1 / len(step))
        loss = outputs.loss if loss_of is None else loss_of(outputs.logits, step_targets, weights)
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), chosen.max_gradient_norm)))
        losses.append(loss.item())
        optimizer.step()
    return losses, norms


def assert_same_curves(history, losses, norms, tolerance=2e-4):
    """Losses and gradient norms agree at each step."""
    assert history.losses == pytest.approx(losses, rel=tolerance, abs=tolerance)
    assert history.gradient_norms == pytest.approx(norms, rel=10 * tolerance, abs=tolerance)


class PullTogether:
    """Rows of a label attract one another and repel others: the loss of a row depends on all rows of its step."""

    needs_whole_step = True

    def __call__(self, outputs_SC, targets, weights_S):
        unit = F.normalize(outputs_SC + 1e-3, dim=1)
        is_other = (weights_S > 0) & ~torch.eye(len(targets), dtype=torch.bool, device=targets.device)
        similarity = torch.where(is_other, 5 * unit @ unit.T, -1e4)
        log_shares = similarity - similarity.logsumexp(dim=1, keepdim=True)
        is_alike = is_other & (targets[:, None] == targets)
        of_rows = -torch.where(is_alike, log_shares, 0.0).sum(dim=1) / is_alike.sum(dim=1).clamp(min=1)
        return torch.dot(of_rows, weights_S)


def pull_together(settings, rows):
    """Makes `PullTogether`."""
    return PullTogether()


PARTS = {"": Parts(), "pull together": Parts(objective=pull_together)}
"""Parts of trainings, by a name that goes to other processes."""


def fit_forked(values, train_rows, validation_rows, sender):
    """Train in a process of its own, and send the report as plain values; for `multiprocessing`."""
    from assay.train.train import fit

    report = fit(TrainSettings(**values), train_rows, validation_rows)
    sender.send(report.to_json())


def pair_rows(num_rows, *, seed):
    """Pairs of sentences, of which half are of one animal: 1 where they are."""
    rows = animal_rows(2 * num_rows, seed=seed)
    rng, by_label = random.Random(seed), {}
    for text, label in zip(rows.texts, rows.labels, strict=True):
        by_label.setdefault(label, []).append(text)
    first, second, labels = [], [], []
    for number in range(num_rows):
        one = "cat" if rng.random() < 0.5 else "dog"
        is_same = number % 2
        other = one if is_same else {"cat": "dog", "dog": "cat"}[one]
        if len(by_label[one]) < 2 or not by_label[other]:
            break
        first.append(by_label[one].pop())
        second.append(by_label[other].pop())
        labels.append(str(is_same))
    return LabelledRows(texts=tuple(first), text_pairs=tuple(second), labels=tuple(labels))


def siamese_settings(base, out, **changes):
    """Settings under which the tiny encoder learns whether two sentences are of one animal."""
    values = {
        "architecture": "siamese",
        "vector_size": 16,
        "head_size": 32,
        "head_dropout": 0.0,
        "evidence": "none",
    }
    return settings(base, out, **{**values, **changes})
