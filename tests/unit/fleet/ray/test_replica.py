"""A replica of Ray Serve on some machine, without Ray Serve: the routes, keys and refusals of `assay serve`."""

import asyncio
from dataclasses import asdict

import httpx
import pytest
from support.models import write_model

from assay.errors import UsageError, WorkError
from assay.fleet.ray.replica import Replica
from assay.serve.keys import hashed_entries, read_keys
from assay.serve.settings import ServeSettings


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A bundle."""
    return write_model(tmp_path_factory.mktemp("replica") / "model")


def test_a_replica_is_the_server(model, tmp_path):
    """It answers with keys of file and environment, reads both again, keeps the old ones, and has no metrics."""
    (tmp_path / "keys").write_text("one:first\n")
    settings = ServeSettings(
        bundle=str(model), engine="fake", keys_file=str(tmp_path / "keys"), executor="ray", devices="1"
    )
    entries = hashed_entries(read_keys(None, {"ASSAY_API_KEYS": "own:secret"}))
    assert "secret" not in entries

    async def ask():
        replica = Replica(asdict(settings), entries)
        await replica.reconfigure({})
        replica.check_health()
        transport = httpx.ASGITransport(app=replica.edge)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:

            async def status(key, path="/info"):
                answer = await client.get(path, headers={"Authorization": f"Bearer {key}"})
                return answer.status_code

            answer = await client.post(
                "/predict", json={"text": "a"}, headers={"Authorization": "Bearer first"}
            )
            assert answer.status_code == 200, answer.text
            assert set(answer.json()["all_probabilities"]) == {"ham", "spam"}
            assert [await status(key) for key in ("first", "secret", "second")] == [200, 200, 401]
            assert await status("first", "/metrics") == 404
            (tmp_path / "keys").write_text("two:second\n")
            assert await replica.reload() is None
            assert [await status(key) for key in ("first", "secret", "second")] == [401, 200, 200]
            (tmp_path / "keys").write_text("no colon\n")
            assert "no colon; write name:key" in await replica.reload()
            assert await status("second") == 200
        await replica.end()

    asyncio.run(ask())


def test_a_replica_whose_engine_does_not_start(model):
    """It says so to Ray Serve, which starts another in its place."""

    class Faulty:
        def is_faulty(self):
            return True

        def trouble(self):
            return "no device"

    replica = Replica(asdict(ServeSettings(bundle=str(model), engine="fake")), "")
    replica.service.deployment = Faulty()
    with pytest.raises(WorkError, match="the engine does not start: no device"):
        replica.check_health()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"rate_limit": 5}, "each replica would count by itself; leave it out and limit in front of"),
        ({"tls_cert": "c", "tls_key": "k"}, "leave it out and end TLS in front of them"),
        ({"port": 0}, "all machines listen on one port; name it"),
    ],
)
def test_what_replicas_cannot_promise_is_refused(model, more, words):
    """A setting that would not hold behind Ray Serve is one line."""
    with pytest.raises(UsageError, match=words):
        ServeSettings(bundle=str(model), executor="ray", **more)
