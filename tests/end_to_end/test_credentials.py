"""Credentials reach a store by the environment alone: no file, object, line or record that Assay writes holds them."""

import logging

import pytest
from support.bundles import write_bundle
from support.cli import use_fake_workers
from support.fake_runs import write_sources
from support.fake_store import at_random

from assay.cli.main import main
from assay.data.storage import open_store

SECRET = "planted0secret0that0nobody0may0read"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": f"KEY{SECRET}",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "AWS_SESSION_TOKEN": f"token{SECRET}",
    "GOOGLE_BEARER_TOKEN": SECRET,
    "AZURE_STORAGE_ACCOUNT_KEY": SECRET,
    "AZURE_STORAGE_SAS_TOKEN": f"sv=2024&sig={SECRET}",
}


@pytest.fixture
def planted(fake_store, monkeypatch, tmp_path, worker_host):
    """A store that is reached with secrets, and a corpus and a bundle to score; the current folder is empty."""
    use_fake_workers(monkeypatch.setattr, host=worker_host)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_sources(tmp_path / "sources", [100])
    write_bundle(tmp_path / "bundle")
    return fake_store


def assert_kept(store, tmp_path, said):
    """The secret is in no object, no file and nothing that was said."""
    written = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written |= {key: content for key, (content, *_) in store.buckets["bucket"].objects.items()}
    assert len(written) > 10
    assert SECRET not in said
    assert [name for name, content in written.items() if SECRET.encode() in content] == []


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_a_run_and_all_that_reads_it(planted, tmp_path, capfd, caplog, kept_sigterm, scheme):
    """Sources, run, report and merged files in a bucket, with requests that fail and with --debug."""
    caplog.set_level(logging.DEBUG)
    with open(tmp_path / "sources/a.parquet", "rb") as corpus:  # noqa: PTH123
        open_store(f"{scheme}://bucket").create("corpus/a.parquet", corpus.read())
    url = f"{scheme}://bucket/run"
    score = [
        "score",
        f"{scheme}://bucket/corpus/*.parquet",
        "--bundle",
        "bundle",
        "--run",
        url,
        "--engine",
        "fake",
    ]
    faults = at_random(1, 0.2)
    planted.plan = lambda *request: faults(*request).replace("late", "503")
    assert main([*score, "--unit-rows", "20", "--debug"]) == 0
    for words in (
        ["status", url, "--json"],
        ["verify", url, "--check-sources"],
        ["report", url],
        ["report", url, "--out", "report.html"],
        ["merge", url, "--out", f"{scheme}://bucket/merged"],
        ["clean", url],
    ):
        assert main([*words, "--debug"]) == 0, words
    planted.plan = lambda kind, _: "400"
    assert main(["status", url, "--debug"]) == 1
    said = "".join(capfd.readouterr()) + caplog.text
    assert_kept(planted, tmp_path, said)


def test_a_url_that_holds_them(planted, tmp_path, capfd, kept_sigterm):
    """It is refused in one line that does not repeat them, as a source, as a run and as an output."""
    places = [f"s3://KEY:{SECRET}@bucket/x", f"az://bucket/x?sv=1&sig={SECRET}"]
    for place in places:
        for words in (
            ["score", place, "--bundle", "bundle", "--run", "run", "--engine", "fake"],
            ["score", "sources", "--bundle", "bundle", "--run", place, "--engine", "fake"],
            ["status", place],
            ["join", place],
            ["clean", place],
        ):
            assert main(words) == 2, words
            assert capfd.readouterr().err.count("\n") == 1
    open_store("s3://bucket").create("kept", b"x" * 11)
    for number in range(12):
        (tmp_path / f"{number}").write_text("")
    assert main(["status", places[0], "--debug"]) == 2
    assert_kept(planted, tmp_path, "".join(capfd.readouterr()))
