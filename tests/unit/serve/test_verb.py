"""Before anything is started: settings, warnings, and which engines go where."""

import pytest
from support.bundles import write_bundle

from assay import machine
from assay.errors import BundleError, UsageError
from assay.serve.keys import Keys
from assay.serve.placement import first_specs, further_specs
from assay.serve.settings import ServeSettings
from assay.serve.verb import check_bundle, is_loopback, warnings

KEYS = Keys((("ci", b"x" * 32),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bundle."""
    return str(write_bundle(tmp_path_factory.mktemp("verb") / "bundle"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70_000}, {"port": -1}, {"timeout": 0.0}, {"timeout": float("nan")}, {"max_queue": 10},
        {"max_batch_tokens": 0}, {"rate_limit": 0}, {"max_length": 0}, {"drain_seconds": -1.0},
        {"tls_key": "key.pem"}, {"devices": "two"}, {"max_body_bytes": 0},
    ],
)  # fmt: skip
def test_settings_out_of_range(folder, wrong):
    """Each is refused where the settings are made."""
    with pytest.raises(UsageError):
        ServeSettings(bundle=folder, **wrong)


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    """A folder without config.json is refused before an engine is started."""
    with pytest.raises(BundleError, match=r"no config\.json; a bundle needs one"):
        check_bundle(ServeSettings(bundle=str(tmp_path)))
    with pytest.raises(BundleError, match="no such folder; a model is a local folder"):
        check_bundle(ServeSettings(bundle=str(tmp_path / "none")))


def test_a_wide_server_without_keys_is_warned_of():
    """Reachable from elsewhere without keys, or with keys in the clear: a line each; on loopback none."""

    def said(host, keys, **others):
        return warnings(ServeSettings(bundle="b", host=host, **others), keys)

    assert said("127.0.0.1", Keys()) == []
    assert said("::1", Keys()) == []
    assert said("127.0.0.1", KEYS) == []
    assert "anyone may" in said("0.0.0.0", Keys())[0]  # noqa: S104  that is the point
    assert "in the clear" in said("10.0.0.1", KEYS)[0]
    assert said("10.0.0.1", KEYS, tls_cert="c", tls_key="k") == []
    assert "--log-texts" in said("127.0.0.1", KEYS, log_texts=True)[0]


def test_loopback():
    """Names and addresses of this machine alone."""
    assert [is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "example.org", "::", "1.2.3.4")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


def test_engines_on_a_cpu(folder, monkeypatch, tmp_path):
    """One with all cores, or as many as asked for, which share them."""
    monkeypatch.setattr(machine, "GPU_DRIVER_FILES", (tmp_path / "none",))
    (spec,) = first_specs(ServeSettings(bundle=folder))
    assert spec.device == "cpu"
    assert len(first_specs(ServeSettings(bundle=folder, devices="3"))) == 3


def test_engines_on_gpus(folder, monkeypatch, tmp_path):
    """The first one starts at once; the others when it has counted; more than there are is refused."""
    driver = tmp_path / "nvidiactl"
    driver.touch()
    monkeypatch.setattr(machine, "GPU_DRIVER_FILES", (driver,))
    auto, two = ServeSettings(bundle=folder), ServeSettings(bundle=folder, devices="2")
    (first,) = first_specs(auto)
    assert first.device == "cuda:0"
    assert [spec.device for spec in further_specs(first, auto, 4)] == ["cuda:1", "cuda:2", "cuda:3"]
    assert [spec.device for spec in further_specs(first, two, 4)] == ["cuda:1"]
    with pytest.raises(UsageError, match="has 1 GPU;"):
        further_specs(first, two, 1)
    assert [spec.device for spec in further_specs(first, two, 0)] == ["cpu"]
    assert further_specs(first, auto, 0) == []


def test_the_fake_engine_needs_no_gpu(folder, monkeypatch, tmp_path):
    """Made-up scores run on the CPU, driver or not."""
    driver = tmp_path / "nvidiactl"
    driver.touch()
    monkeypatch.setattr(machine, "GPU_DRIVER_FILES", (driver,))
    assert first_specs(ServeSettings(bundle=folder, engine="fake"))[0].device == "cpu"


def test_links_are_resolved(folder, tmp_path):
    """Server and engine load one folder, whatever a link points to in between."""
    link = tmp_path / "current"
    link.symlink_to(folder)
    assert first_specs(ServeSettings(bundle=str(link)))[0].bundle == folder


def test_the_server_imports_no_torch():
    """The process that answers HTTP starts in a second: neither torch nor transformers is imported."""
    import subprocess
    import sys

    code = "import sys, assay.serve.server; print('torch' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.split() == ["False", "False"]
