"""Documents that run in fp32 too: which, when, what is said of them, and what /metrics makes of it."""

import contextlib
import logging
import os
import socket
import threading

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.bundles import write_encoder
from support.models import write_model
from support.siamese import make_siamese_folder

from assay.embed.differences import Differences
from assay.engine.fake import FakeEngine
from assay.engine.parity import vector_differences
from assay.errors import UsageError, WorkError
from assay.serve import frames, parity
from assay.serve.engine_process import Computing, ServerLink, run_batch
from assay.serve.frames import BatchFrame, FrameKind
from assay.serve.kinds import open_model
from assay.serve.metrics import Compared, Metrics
from assay.serve.parity import MOST_WAITING, Samples, check_share, samples_of
from assay.serve.settings import ServeSettings
from assay.serve.verb import check_bundle


def batch_of(*lengths, seed=0, documents=None, normalize=None):
    """Sequences of random ids."""
    offsets = np.cumsum([0, *lengths]).astype(np.int32)
    ids = np.random.default_rng(seed).integers(0, 1000, offsets[-1], dtype=np.int32)
    wanted = None if normalize is None else np.full(len(lengths), normalize, np.int32)
    return BatchFrame(
        ids, offsets, None, wanted, None if documents is None else np.array(documents, np.int32)
    )


def outputs_of(batch):
    """What fp32 gives of a batch here: numbers that follow from each sequence's ids."""
    sums = np.add.reduceat(batch.flat_ids, batch.offsets[:-1]).astype(np.float32)
    return np.stack([sums, np.ones_like(sums)], axis=1)


class Comparing:
    """Samples whose comparison keeps what it is given, and what they told."""

    def __init__(self, *, share=1.0, allowed=0.5, how=None, run=outputs_of):
        self.pairs, self.told, self.ran = [], [], []

        def ran(batch):
            self.ran.append(batch)
            return run(batch)

        def compare(found, exact):
            self.pairs.append((found, exact))
            return np.abs(found - exact).max(axis=1).astype(np.float64), found[:, 0] != exact[:, 0]

        self.samples = Samples(ran, compare, self.told.append, share=share, allowed=allowed, how=how)

    def finish(self):
        """Run all that waits."""
        while self.samples.is_waiting:
            self.samples.step()

    def differences(self):
        """Those told so far."""
        return [each for content in self.told for each in content.get("differences", ())]


def test_a_share_is_chosen_by_the_ids():
    """About the share; the same ones in another batch and by another engine, whatever else is in the batch."""
    lengths = [3] * 400
    one, other = Comparing(share=0.25), Comparing(share=0.25)
    whole = batch_of(*lengths)
    for first in range(0, 400, 40):
        one.samples.offer(
            BatchFrame(whole.flat_ids[3 * first : 3 * first + 120], whole.offsets[:41]), np.zeros((40, 2))
        )
        one.finish()
    for first in reversed(range(400)):
        other.samples.offer(
            BatchFrame(whole.flat_ids[3 * first : 3 * first + 3], whole.offsets[:2]), np.zeros((1, 2))
        )
        other.finish()
    chosen = [{tuple(batch.flat_ids.tolist()) for batch in each.ran} for each in (one, other)]
    assert chosen[0] == chosen[1]
    assert 60 < len(chosen[0]) < 140
    assert all(len(batch.offsets) == 2 for batch in one.ran)


def test_a_document_counts_once(monkeypatch):
    """One that is sent again is not compared again, until as many others came as are remembered."""
    monkeypatch.setattr(parity, "MOST_REMEMBERED", 2)
    comparing = Comparing()
    for seed, times in ((1, 3), (2, 1), (3, 1), (1, 1)):
        batch = batch_of(4, seed=seed)
        for _ in range(times):
            comparing.samples.offer(batch, outputs_of(batch))
            comparing.finish()
    assert comparing.differences() == [0.0] * 4


def test_what_is_told(caplog):
    """The difference of each, labels that are others, and those past the tolerance, of which a line is logged."""
    comparing = Comparing(allowed=0.5)
    batch = batch_of(2, 3, 4)
    outputs = outputs_of(batch) + np.array([[0, 0], [0.25, 0], [3, 0]], np.float32)
    with caplog.at_level(logging.WARNING):
        comparing.samples.offer(batch, outputs)
        outputs[:] = np.nan  # the arrays of a batch are not kept
        comparing.finish()
        comparing.samples.offer(batch_of(5, seed=9), np.full((1, 2), 1e6, np.float32))
        comparing.finish()
    assert comparing.differences()[:3] == [0.0, 0.25, 3.0]
    assert [content["labels_changed"] for content in comparing.told] == [0, 1, 1, 1]
    assert [content["beyond"] for content in comparing.told] == [0, 0, 1, 1]
    # at most once a minute
    assert [record.getMessage() for record in caplog.records] == [
        (
            "a document of 4 tokens differs from fp32 by 3 (allowed 0.5), one of 1 past the tolerance since this was "
            "last said; serve with --precision fp32, or with bf16 in place of fp8"
        )
    ]


@pytest.mark.parametrize(("how", "of_views"), [("mean", np.mean), ("max", np.max)])
@pytest.mark.parametrize("normalize", [None, 0, 1])
def test_windows_are_brought_together(how, of_views, normalize):
    """A document of three windows beside one of one: each is compared as it is answered, its windows run alone."""
    comparing = Comparing(how=how)
    batch = batch_of(4, 3, 2, 5, documents=[0, 0, 0, 1], normalize=normalize)
    comparing.samples.offer(batch, outputs_of(batch))
    comparing.finish()
    assert [len(each.flat_ids) for each in comparing.ran] == [4, 3, 2, 5]
    assert comparing.differences() == [0.0, 0.0]
    expected = of_views(outputs_of(batch)[:3].astype(np.float64), axis=0)
    if normalize:
        expected /= np.linalg.norm(expected)
    np.testing.assert_allclose(comparing.pairs[0][0], expected[None], rtol=1e-6)


def test_too_many_are_dropped_and_counted(monkeypatch):
    """A bound on what waits; what was dropped is said at most once a second, and chosen again where it comes again."""
    comparing = Comparing()
    lengths = [3] * (MOST_WAITING + 10)
    batch = batch_of(*lengths)
    comparing.samples.offer(batch, outputs_of(batch))
    comparing.samples.offer(batch, outputs_of(batch))  # those that wait are known, the ten are dropped again
    assert [content["dropped"] for content in comparing.told] == [10]
    comparing.finish()
    assert sum(content["dropped"] for content in comparing.told) == 20
    assert len(comparing.differences()) == MOST_WAITING
    comparing.samples.offer(batch, outputs_of(batch))
    comparing.finish()
    assert len(comparing.differences()) == MOST_WAITING + 10


def test_what_cannot_run_is_dropped():
    """The device has no room for a document in fp32: it counts as dropped, and the engine goes on."""

    def run(batch):
        if len(batch.flat_ids) == 7:
            raise WorkError("no room")
        return outputs_of(batch)

    comparing = Comparing(run=run)
    batch = batch_of(7, 2)
    comparing.samples.offer(batch, outputs_of(batch))
    comparing.finish()
    assert comparing.told == [{"differences": [0.0], "labels_changed": 0, "beyond": 0, "dropped": 1}]


def test_a_document_without_an_answer_does_not_count():
    """It was refused; nothing is said of it."""
    told = []
    samples = Samples(outputs_of, vector_differences, told.append, share=1.0, allowed=1.0)
    batch = batch_of(3)
    samples.offer(batch, np.full((1, 2), np.nan, np.float32))
    samples.step()
    assert not told
    assert not samples.is_waiting


class Line:
    """An engine's compute thread, all of whose documents run in fp32 too, and the server's end of its socket."""

    def __init__(self):
        self.ours, self.theirs = socket.socketpair()
        self.ours.settimeout(20)
        self.read = self.ours.makefile("rb")
        self.num_run = 0
        engine, link = FakeEngine(), ServerLink(self.theirs)

        def run(batch):
            self.num_run += 1
            return run_batch(engine, batch, max_batch_tokens=None)[0]

        self.samples = Samples(
            run,
            vector_differences,
            lambda content: link.send(frames.pack_json(FrameKind.COMPARED, content)),
            share=1.0,
            allowed=1e-6,
        )
        self.computing = Computing(link, engine, max_batch_tokens=None, device="cpu", samples=self.samples)
        self.thread = threading.Thread(target=self._run)

    def _run(self):
        with contextlib.suppress(SystemExit):
            self.computing.run()

    def close(self):
        """End the engine as a server does that is gone."""
        self.read.close()
        self.ours.close()
        if self.thread.is_alive():
            self.thread.join()
        self.theirs.close()

    def send(self, *batches):
        """Give it batches."""
        self.ours.sendall(b"".join(frames.pack_batch(k, batch) for k, batch in enumerate(batches, start=1)))

    def kinds(self, number):
        """The kinds of the next frames."""
        found = []
        for _ in range(number):
            head = frames.read_head(self.read.read(frames.HEAD.size))
            self.read.read(head.num_bytes)
            found.append(FrameKind(head.kind))
        return found


@pytest.fixture
def line(monkeypatch):
    """An engine whose end is that of its thread."""

    def leave(status):
        raise SystemExit(status)

    monkeypatch.setattr(os, "_exit", leave)
    line = Line()
    yield line
    line.close()


def test_answers_come_first(line):
    """Batches that wait are answered before any document runs in fp32; then all do, without another batch coming."""
    line.send(*(batch_of(3, 4, seed=seed) for seed in range(5)))
    line.thread.start()
    assert line.kinds(15) == [FrameKind.OUTPUTS] * 5 + [FrameKind.COMPARED] * 10
    line.send(batch_of(3, seed=99))
    assert line.kinds(2) == [FrameKind.OUTPUTS, FrameKind.COMPARED]


def test_nothing_runs_beside_a_batch_of_the_other_thread(line):
    """One thread waits for a batch while the other computes: it leaves the device to it."""
    batch = batch_of(3)
    line.samples.offer(batch, np.zeros((1, 2), np.float32))
    line.computing._num_computing = 1
    assert line.computing._idle()
    assert line.num_run == 0
    line.computing._num_computing = 0
    assert not line.computing._idle()
    assert line.num_run == 1


def values(metrics):
    """The samples of /metrics by name and labels."""
    families = text_string_to_metric_families(metrics.exposition().decode())
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


def test_metrics():
    """Counts, the histogram over the edges of reports, and their bounds; of several processes those of the sums."""
    total, part = Metrics(), Metrics()
    assert not any("most" in name for name, *_ in values(total))
    part.compared(Compared(differences=[0.003, float("inf")], labels_changed=1, beyond=1, dropped=4))
    total.compared(Compared(differences=[1e-6] * 38, dropped=1))
    total.add(part.take())
    found = values(total)
    assert found["assay_parity_documents",] == 40
    assert found["assay_parity_dropped",] == 5
    assert found["assay_parity_labels_changed",] == found["assay_parity_beyond_tolerance",] == 1
    assert found["assay_parity_difference_bucket", "0.002"] == 38
    assert found["assay_parity_difference_bucket", "0.005"] == 39
    assert found["assay_parity_difference_bucket", "+Inf"] == 40
    assert found["assay_parity_difference_sum",] == pytest.approx(0.003 + 38e-6)
    sample = Differences.of(np.array([1e-6] * 38 + [0.003, np.inf]), np.arange(40) == 0)
    for edge in ("0.0001", "0.001", "0.01", "0.1"):
        assert found["assay_parity_most_beyond", edge] == sample.most_beyond(float(edge))
    assert found["assay_parity_most_changed",] == sample.most_changed()


def test_what_cannot_be_compared_is_refused(tmp_path):
    """A fake engine, one in fp32, vectors of pairs, and a cascade; each says why."""
    model = open_model(str(write_model(tmp_path / "model")), kind="auto", pooling="auto")
    siamese = open_model(str(make_siamese_folder(tmp_path / "siamese")), kind="auto", pooling="auto")
    for served, engine, precision, why in (
        (model, "fake:2", "fp16", "fake engine"),
        (model, "auto", "fp32", "computes in fp32 itself"),
        (siamese, "auto", "fp16", "pairs of vectors"),
    ):
        with pytest.raises(UsageError, match=rf"parity_share=0\.5; .*{why}.*; leave it out"):
            check_share(0.5, served, engine=engine, precision=precision)
    check_share(0.5, model, engine="padded", precision="fp16")
    (tmp_path / "cascade.json").write_text("{}")
    with pytest.raises(UsageError, match="a cascade"):
        check_bundle(ServeSettings(bundle=str(tmp_path / "cascade.json"), parity_share=0.5))


@pytest.mark.parametrize(
    ("task", "allowed"), [("single_label", 0.04), ("regression", 0.04), ("encoder", 0.15)]
)
def test_differences_are_those_of_a_run(tmp_path, task, allowed, caplog):
    """Probabilities of labels, a regression's value, the distance of vectors; past the precision's tolerance."""
    if task == "encoder":
        folder = write_encoder(tmp_path / "model")
    else:
        folder = write_model(
            tmp_path / "model", task=task, labels=("a",) if task == "regression" else ("a", "b")
        )
    model = open_model(str(folder), kind="auto", pooling="auto")
    exact = np.array([[0.0, 1.0]] if task != "regression" else [[0.5]], np.float32)
    told = []
    samples = samples_of(model, lambda _: exact, told.append, share=1.0, precision="bf16", how=None)
    for seed, step in enumerate((0.9, 1.1)):
        found = exact.copy()
        if task == "single_label":
            # by the logit that moves the probability so far
            share = 1 / (1 + np.exp(1)) + step * allowed
            found[0, 0] = 1 + np.log(share / (1 - share))
        else:
            found[0, 0] += step * allowed
        samples.offer(batch_of(3, seed=seed), found)
        samples.step()
    assert [content["differences"][0] for content in told] == pytest.approx(
        [0.9 * allowed, 1.1 * allowed], rel=1e-4
    )
    assert [content["beyond"] for content in told] == [0, 1]
