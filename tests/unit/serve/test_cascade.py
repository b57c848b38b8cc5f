"""A cascade on its way through the server: two queues, one deadline, one bound; what goes wrong is said by the pair."""

import asyncio

import pytest
from support.models import write_model
from support.serving import client_of, open_cascade, until
from support.siamese import add_evidence, make_siamese_folder, write_cascade_of

from assay.errors import BundleError, UsageError, WorkError
from assay.score.bundles import engine_of, open_bundle
from assay.serve.cascade import load_cascade_here
from assay.serve.placement import bundle_folders, first_specs
from assay.serve.refusals import Refusal
from assay.serve.settings import ServeSettings
from assay.serve.tickets import How

pytestmark = pytest.mark.usefixtures("kept_threads")

TEXTS = [f"The cat number {number} sat on the mat, and the dog ran." for number in range(12)]
PAIRS = list(zip(TEXTS, reversed(TEXTS), strict=True))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A cascade that leaves every pair open, and its models beside it."""
    folder = tmp_path_factory.mktemp("cascade")
    add_evidence(make_siamese_folder(folder / "first"), TEXTS)
    write_model(folder / "second", labels=("0", "1"))
    write_cascade_of(folder, folder / "first", folder / "second", low=0.0)
    return folder


async def never():
    """A client that stays."""
    await asyncio.sleep(3600)


def asking(deployment, pairs):
    """A task that asks about pairs."""
    return asyncio.ensure_future(deployment.answer(pairs, How(), request_id="id", receive=never))


def test_each_model_has_engines_of_its_own(place):
    """As many processes for each as were asked for, on its own folder; threads are shared out among all."""
    specs = first_specs(ServeSettings(bundle=str(place), devices="2", engine="fake", num_threads=4))
    first, second = bundle_folders(str(place / "cascade.json"))
    assert [(spec.bundle, spec.stage) for spec in specs] == [
        (str(first), 0),
        (str(first), 0),
        (str(second), 1),
        (str(second), 1),
    ]


def test_only_open_pairs_reach_the_second_queue(place, tmp_path):
    """Counted at its engine; the times of both are the request's."""
    bundle = open_bundle(place)
    engines = [engine_of(stage, num_threads=1) for stage in (bundle.first, bundle.second)]
    closed = write_cascade_of(tmp_path / "closed", place / "first", place / "second", low=0.0, high=0.5)

    async def run(file):
        service, (_, second) = open_cascade(file, engines=engines)
        async with client_of(service) as client:
            body = {"texts": [one for one, _ in PAIRS], "text_pairs": [two for _, two in PAIRS]}
            answers = (await client.post("/predict/batch", json=body | {"details": True})).json()
            info = (await client.get("/info")).json()
        return answers, sum(map(len, second.batches)), info

    answers, num_second, info = asyncio.run(run(place))
    assert num_second == len(PAIRS)
    assert {answer["stage"] for answer in answers} == {"two-stage"}
    assert (info["kind"], info["fingerprint"]) == ("cascade", bundle.fingerprint)
    answers, num_second, _ = asyncio.run(run(closed))
    assert num_second == sum(answer["stage"] == "two-stage" for answer in answers)
    for answer in answers:
        assert (answer["stage"] == "bi-only") == (answer["bi_probability"] > 0.5)


def test_one_deadline_and_one_bound_hold_over_both_models(place):
    """A request waits at the second queue no longer than is left, and counts until it is answered."""

    async def run():
        service, (_, second) = open_cascade(
            place, seconds=0.05, max_queue=40, max_client_batch_size=20, timeout=1.5
        )
        second.seconds = 5.0
        deployment = service.admit(service.deployment.num_documents(PAIRS))
        task = asking(deployment, PAIRS)
        await until(lambda: second.batches)
        assert deployment.num_waiting == len(PAIRS)
        with pytest.raises(Refusal, match="12 documents wait already"):
            service.admit(29)
        with pytest.raises(Refusal) as caught:
            await task
        assert caught.value.status == 504
        assert deployment.num_waiting == 0
        await service.drain()

    asyncio.run(run())


def test_a_start_that_fails_leaves_no_task_behind(place):
    """Where one model cannot start, nobody goes on waiting for the other one."""

    async def run():
        service, _ = open_cascade(place)
        starting = asyncio.ensure_future(service.deployment.start([]))
        await asyncio.sleep(0)
        service.deployment.first.pool._fail(WorkError("no device"))
        with pytest.raises(WorkError, match="no device"):
            await starting
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    asyncio.run(run())


def test_a_drain_answers_what_is_between_the_models(place):
    """What was accepted goes through both; a model without an engine makes the whole unhealthy."""

    async def run():
        service, (first, second) = open_cascade(place, seconds=0.1)
        task = asking(service.deployment, PAIRS[:2])
        await asyncio.sleep(0.02)
        await service.drain()
        _, found = await task
        assert len(found) == 2
        service, (first, second) = open_cascade(place)
        second.end(for_seconds=3600)
        assert service.trouble() == "killed"
        assert not service.deployment.is_faulty()
        second.num_failed_starts = 1
        assert service.deployment.is_faulty()
        assert first.ready is not None
        await service.drain()

    asyncio.run(run())


def test_what_is_wrong_with_a_pair_is_said_by_its_own_number(place, tmp_path):
    """Also where only the second model cannot read it, and other pairs were decided before."""
    bundle = open_bundle(place)
    engines = [engine_of(stage, num_threads=1) for stage in (bundle.first, bundle.second)]
    long = "The dog ran. " * 30

    async def run():
        service, _ = open_cascade(place, engines=engines)
        async with client_of(service) as client:
            body = {"inputs": [[TEXTS[0], TEXTS[1]], [TEXTS[2], long]], "truncate": False}
            return await client.post("/predict", json=body)

    answer = asyncio.run(run())
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("pair 1 has more than 32 tokens")


def test_what_a_cascade_does_not_take_is_refused_at_the_start(place, tmp_path):
    """Other lengths, vectors, and models that are not there."""
    with pytest.raises(UsageError, match="whose models read texts as they were tuned; leave --max-length"):
        load_cascade_here(ServeSettings(bundle=str(place), max_length=16))
    with pytest.raises(UsageError, match="is a cascade and gives no vectors; leave --model-kind out"):
        load_cascade_here(ServeSettings(bundle=str(place), model_kind="encoder"))
    moved = tmp_path / "cascade.json"
    moved.write_text((place / "cascade.json").read_text().replace(str(place), "elsewhere"))
    with pytest.raises(BundleError, match="its first model is neither at"):
        first_specs(ServeSettings(bundle=str(moved)))
