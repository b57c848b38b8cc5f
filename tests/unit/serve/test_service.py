"""Queues, deadlines, lost clients, dying engines, drain: the whole path in one event loop, without processes."""

import asyncio
import errno
import os
import time

import pytest
from support.bundles import write_bundle
from support.serving import client_of, open_service, until

from assay.bundle.calibration import save_calibration
from assay.outcome.calibration import Calibration
from assay.serve.deployment import load_here
from assay.serve.refusals import Refusal
from assay.serve.settings import ServeSettings
from assay.serve.tickets import ClientGoneError, How

POISON = "77"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle of two labels."""
    return write_bundle(tmp_path_factory.mktemp("service") / "bundle")


async def never():
    """A client that stays."""
    await asyncio.sleep(3600)


def score(service, texts, receive=never):
    """A task that scores texts."""

    async def run():
        deployment = service.admit(len(texts))
        ticket, found = await deployment.answer(
            [(text, None) for text in texts], How(), request_id="id", receive=receive
        )
        return deployment, ticket, found

    return asyncio.ensure_future(run())


def token_id(folder, word):
    """The id of a word of the test tokenizer."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json")).token_to_id(word)


def test_requests_that_wait_become_one_batch(folder):
    """While the engine works on one request, those that come gather, and go together when it is free."""

    async def run():
        service, (engine,) = open_service(folder, seconds=0.3)
        first = score(service, ["of"])
        await until(lambda: engine.batches)
        others = [score(service, [f"of {number}"]) for number in range(20)]
        await asyncio.gather(first, *others)
        assert len(engine.batches) <= 3
        assert max(map(len, engine.batches)) >= 19
        await service.drain()

    asyncio.run(run())


def test_two_batches_are_in_flight_where_much_waits(folder):
    """With more than a batch waiting, the next one is sent before the first has come back; never a third."""

    async def run():
        service, (engine,) = open_service(folder, seconds=0.1, budget=32)
        most = 0
        task = score(service, ["of 1 2 3 4"] * 40)
        while not task.done():
            most = max(most, len(engine.in_flight))
            await asyncio.sleep(0.002)
        assert most == 2
        assert all(sum(len(document.flat_ids) for document in batch) <= 32 for batch in engine.batches)
        await service.drain()

    asyncio.run(run())


def test_engines_share_one_queue(folder):
    """Two engines get batches of the same queue, and answers find their requests."""

    async def run():
        service, engines = open_service(folder, seconds=0.02, budget=64, num_engines=2)
        texts = [f"document of {number}" for number in range(90)]
        alone = [(await score(service, [text]))[2][0].score for text in texts[:5]]
        found = (await score(service, texts))[2]
        assert [each.score for each in found[:5]] == alone
        assert all(engine.batches for engine in engines)
        await service.drain()

    asyncio.run(run())


def test_idle_engines_share_what_waits(folder):
    """Several idle engines get about as much each, rather than one of them all."""

    async def run():
        service, engines = open_service(folder, seconds=0.2, budget=100_000, num_engines=3)
        for engine in engines:
            engine.tokens_per_second = 1e4
        await score(service, ["of 1 2 3 4 5 6 7 8 9 10 11 12"] * 1000)
        tokens = [
            sum(len(document.flat_ids) for batch in engine.batches for document in batch)
            for engine in engines
        ]
        assert min(tokens) > 0.2 * sum(tokens)
        await service.drain()

    asyncio.run(run())


def test_the_queue_is_bounded(folder):
    """A request beyond the most that may wait is refused at once, with a time to come back."""

    async def run():
        service, (engine,) = open_service(
            folder, seconds=0.5, budget=8, max_queue=20, max_client_batch_size=20
        )
        task = score(service, ["of"] * 15)
        await until(lambda: engine.batches)
        began = time.monotonic()
        with pytest.raises(Refusal) as caught:
            await score(service, ["of"] * 15)
        assert time.monotonic() - began < 0.2
        assert caught.value.status == 429
        assert int(caught.value.headers["Retry-After"]) >= 1
        task.cancel()
        await service.drain()

    asyncio.run(run())


def test_who_would_wait_too_long_is_refused(folder):
    """By the measured speed the queue would take longer than the timeout: 429 now rather than 504 later."""

    async def run():
        service, (engine,) = open_service(folder, seconds=0.2, budget=8, timeout=10)
        task = score(service, ["of 1 2"] * 200)
        await until(lambda: engine.batches)
        engine.tokens_per_second = 10.0
        with pytest.raises(Refusal, match="documents wait already") as caught:
            await score(service, ["of"])
        assert int(caught.value.headers["Retry-After"]) > 10
        task.cancel()
        await service.drain()

    asyncio.run(run())


def test_deadlines(folder):
    """A request that is not answered in time is answered 504, and what waits of it is dropped."""

    async def run():
        service, (engine,) = open_service(folder, seconds=0.6, budget=8, timeout=0.25)
        with pytest.raises(Refusal) as caught:
            await score(service, ["of"] * 50)
        assert caught.value.status == 504
        assert service.deployment.num_waiting == 0
        num_batches = len(engine.batches)
        await asyncio.sleep(0.7)
        assert len(engine.batches) == num_batches
        await service.drain()

    asyncio.run(run())


def test_lost_clients_cost_nothing(folder):
    """A request whose client is gone leaves the queue before it is computed."""

    async def run():
        service, (engine,) = open_service(folder, seconds=0.3, budget=8)
        gone = asyncio.Event()

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        first = score(service, ["of"])
        await until(lambda: engine.batches)
        lost = score(service, ["of 1 2 3 4"] * 30, receive)
        await until(lambda: service.deployment.num_waiting >= 28)
        gone.set()
        with pytest.raises(ClientGoneError):
            await lost
        assert service.deployment.num_waiting == 0
        await first
        await asyncio.sleep(0.4)
        assert sum(map(len, engine.batches)) <= 4
        await service.drain()

    asyncio.run(run())


def test_a_dead_engines_batch_is_tried_again(folder):
    """What an engine died with is computed by the next one; the clients notice nothing."""

    async def run():
        service, (engine,) = open_service(folder, seconds=0.2)
        tasks = [score(service, [f"of {number}"]) for number in range(10)]
        await until(lambda: engine.in_flight)
        engine.end(for_seconds=0.2)
        assert service.trouble() == "killed"
        found = await asyncio.gather(*tasks)
        assert all(len(each[2]) == 1 for each in found)
        assert service.trouble() is None
        await service.drain()

    asyncio.run(run())


def test_a_text_that_ends_engines_takes_no_other_with_it(folder):
    """Its second try is alone: it gets an error, and those that were in a batch with it their scores."""

    async def run():
        service, (engine,) = open_service(folder, seconds=0.05)
        engine.poison = token_id(folder, POISON)
        blocking = score(service, ["of"])
        await until(lambda: engine.batches)
        tasks = [score(service, [f"of {number}"]) for number in range(8)]
        bad = score(service, [f"document of {POISON}"])
        found = await asyncio.gather(blocking, *tasks)
        assert all(len(each[2]) == 1 for each in found)
        with pytest.raises(Refusal) as caught:
            await bad
        assert caught.value.status == 424
        await service.drain()

    asyncio.run(run())


def test_faults_are_refused(folder):
    """Where an engine failed and did not start again either, requests are refused with the reason."""

    async def run():
        service, (engine,) = open_service(folder)
        engine.end(for_seconds=3600)
        engine.num_failed_starts = 1
        async with client_of(service) as client:
            health = await client.get("/health")
            predict = await client.post("/predict", json={"text": "of"})
            live = await client.get("/live")
        assert (health.status_code, predict.status_code, live.status_code) == (503, 503, 200)
        assert "killed" in health.json()["error"]
        assert predict.headers["retry-after"]

    asyncio.run(run())


def test_before_it_is_loaded(folder):
    """Until the model is there: alive, not healthy, no predictions, and why."""

    async def run():
        service, _ = open_service(folder)
        deployment, service.deployment, service.state = service.deployment, None, "starting"
        async with client_of(service) as client:
            for answer in (
                await client.get("/health"),
                await client.get("/info"),
                await client.post("/predict", json={"text": "of"}),
            ):
                assert answer.status_code == 503
                assert "starting" in answer.json()["error"]
            assert (await client.get("/live")).status_code == 200
            assert (await client.get("/metrics")).status_code == 200
        await deployment.end(0)

    asyncio.run(run())


def test_lengths_other_than_those_of_the_calibration_are_said(tmp_path):
    """Served with texts cut otherwise than the calibration had them: said at the start; else nothing is."""
    bundle = write_bundle(tmp_path / "bundle")
    save_calibration(bundle, Calibration(temperature=2.0, meta={"max_length": 8, "on_long": "truncate"}))
    for max_length, said in ((8, []), (9, ["up to 9 under truncate"])):
        settings = ServeSettings(bundle=str(bundle), max_length=max_length)
        notes = load_here(settings, str(bundle)).notes()
        assert len(notes) == len(said)
        assert all(part in note for part, note in zip(said, notes, strict=True))


def test_windows_other_than_those_of_the_calibration_are_said(tmp_path):
    """Served with windows that overlap otherwise than those of the calibration: said at the start."""
    bundle = write_bundle(tmp_path / "bundle")
    meta = {"max_length": 8, "on_long": "window-max", "stride": 2}
    save_calibration(bundle, Calibration(temperature=2.0, meta=meta))
    for stride, num_notes in ((2, 0), (3, 1)):
        settings = ServeSettings(bundle=str(bundle), max_length=8, on_long="window-max", stride=stride)
        assert len(load_here(settings, str(bundle)).notes()) == num_notes


def test_drain(folder):
    """What was accepted is answered; what comes after is refused; health says so at once."""

    async def run():
        service, (engine,) = open_service(folder, seconds=0.2, budget=8)
        async with client_of(service) as client:
            accepted = asyncio.ensure_future(client.post("/predict/batch", json={"texts": ["of"] * 6}))
            await until(lambda: engine.batches)
            draining = asyncio.ensure_future(service.drain())
            await asyncio.sleep(0)
            health = await client.get("/health")
            late = await client.post("/predict", json={"text": "of"})
            assert (health.status_code, late.status_code) == (503, 503)
            assert "shutting down" in health.json()["error"]
            assert (await accepted).status_code == 200
            await draining

    asyncio.run(run())


def test_drain_ends_within_its_limit(folder):
    """What takes longer than allowed is answered 503, and the server ends."""

    async def run():
        service, (engine,) = open_service(folder, seconds=60, drain_seconds=0.1)
        task = score(service, ["of"])
        await until(lambda: engine.batches)
        began = time.monotonic()
        await service.drain()
        assert time.monotonic() - began < 2
        with pytest.raises(Refusal) as caught:
            await task
        assert caught.value.status == 503

    asyncio.run(run())


def test_one_text_is_not_held_up_by_a_large_request(folder):
    """A text that comes after a request of 400 is answered long before it."""

    async def run():
        service, _ = open_service(folder, seconds=0.03, budget=64)
        large = score(service, ["of 1 2 3 4 5 6"] * 400)
        await asyncio.sleep(0.1)
        await score(service, ["of"])
        assert not large.done()
        assert len((await large)[2]) == 400
        await service.drain()

    asyncio.run(run())


def test_nan_is_an_error_and_no_score(folder, monkeypatch):
    """A text for which the model gives no finite number is answered 424, named by its place."""
    import numpy as np
    from support import serving

    plain = serving.logits_of

    def with_nan(frame, num_outputs):
        logits = plain(frame, num_outputs)
        if len(logits) > 1:
            logits[1, 0] = np.nan
        return logits

    monkeypatch.setattr(serving, "logits_of", with_nan)

    async def run():
        service, _ = open_service(folder)
        with pytest.raises(Refusal, match="for text 1") as caught:
            await score(service, ["of", "of 1"])
        assert caught.value.status == 424
        await service.drain()

    asyncio.run(run())


def test_a_reload_that_the_machine_refuses(folder, monkeypatch, caplog):
    """No process to be had, or a file that cannot be read: said and counted as any failed reload, the old goes on."""

    def refuse(_settings):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("assay.serve.service.start_first", refuse)

    async def run():
        service, _ = open_service(folder)
        old = service.deployment
        await service.reload()
        assert service.deployment is old
        assert b'assay_reloads{outcome="failed"} 1.0' in service.metrics.exposition()
        await score(service, ["of"])
        await service.drain()

    asyncio.run(run())
    assert "reload failed, the old bundle goes on" in caplog.text
