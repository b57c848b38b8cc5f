"""Which engine `load_engine` picks, and the self test that guards the packed one."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from support.configs import PACKED_CONFIGS
from transformers import AutoModelForSequenceClassification, BertConfig, MPNetConfig

from assay.engine.cpu import CpuPackedEngine, has_onednn
from assay.engine.engine import in_fp32
from assay.engine.fake import FakeEngine
from assay.engine.load import SELF_TEST_TOLERANCE, load_engine, self_test
from assay.engine.padded import PaddedEngine
from assay.engine.settings import CpuThreads
from assay.engine.several import SeveralEngines
from assay.errors import BundleError, UsageError
from assay.model import pretrained
from assay.model.packing import pack

pytestmark = pytest.mark.usefixtures("kept_threads")

SHAPE = {
    "vocab_size": 40,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "initializer_range": 0.3,
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A tiny BERT classifier's directory."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(BertConfig(**SHAPE)).save_pretrained(folder)
    return folder


def test_a_known_family_runs_packed(bert):
    """BERT on the CPU gets the packed engine, on the threads asked for."""
    engine = load_engine(bert, num_threads=1)
    assert isinstance(engine, CpuPackedEngine)
    assert torch.get_num_threads() == 1
    assert "1 threads" in engine.description()


@pytest.mark.parametrize("wrong", [0, -1, 10**9, 1.5, "2", True])
def test_a_number_of_threads_that_cannot_be_is_refused(bert, wrong):
    """In the words of every setting, before anything is loaded."""
    with pytest.raises(UsageError, match="num_threads is "):
        load_engine(bert, num_threads=wrong)


def test_an_unknown_family_runs_padded_and_says_why(tmp_path):
    """MPNet gets transformers' own forward and a reason."""
    AutoModelForSequenceClassification.from_config(MPNetConfig(**SHAPE)).save_pretrained(tmp_path)
    engine = load_engine(tmp_path)
    assert isinstance(engine, PaddedEngine)
    assert "mpnet" in engine.description()


def test_half_precision_on_the_cpu_runs_padded(bert):
    """The packed CPU kernels are fp32; another precision says so."""
    engine = load_engine(bert, precision="bf16")
    assert isinstance(engine, PaddedEngine)
    assert "fp32" in engine.description()
    assert engine.forward(pack([[1, 2], [3]])).dtype == torch.float32


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """A cache in which no engine has passed its self test yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_passed_once_is_not_tried_again(bert, fresh_cache, monkeypatch):
    """The second load makes no transformers model and gives the same logits; a changed file is tried again."""
    first = load_engine(bert, num_threads=1)
    sequences = pack([[1, 2, 3], [4, 5, 6, 7]])
    calls = []
    original = pretrained.load_classifier
    monkeypatch.setattr(
        pretrained, "load_classifier", lambda *args, **named: calls.append(args) or original(*args, **named)
    )
    second = load_engine(bert, num_threads=1)
    assert not calls
    assert isinstance(second, CpuPackedEngine)
    torch.testing.assert_close(second.forward(sequences), first.forward(sequences), atol=0.0, rtol=0.0)
    os.utime(bert / "model.safetensors", ns=(1, 1))
    load_engine(bert, num_threads=1)
    assert len(calls) == 1


@pytest.mark.parametrize(
    "content", [b"", b'{"model_type": "be', b"[]", b"{}", b'{"model_type": "bert"}', b"\xff"]
)
def test_a_damaged_note_is_none(bert, fresh_cache, content):
    """The engine is tried again, and noted again."""
    load_engine(bert, num_threads=1)
    (note,) = (fresh_cache / "assay" / "proofs").iterdir()
    whole = note.read_bytes()
    note.write_bytes(content)
    assert isinstance(load_engine(bert, num_threads=1), CpuPackedEngine)
    assert note.read_bytes() == whole


_LATER_START = """
import json, sys
from assay.engine.load import load_engine
from assay.model.packing import pack
found = {}
for bundle in sys.argv[1:]:
    engine = load_engine(bundle, num_threads=1)
    found[bundle] = [type(engine).__name__, engine.forward(pack([[1, 2, 3], [4, 5, 6, 7]])).tolist()]
print(json.dumps([found, "transformers" in sys.modules]))
"""


def test_a_later_start_needs_nothing_of_transformers(tmp_path, fresh_cache):
    """Another process gives the very same logits for every family, and has not imported the library."""
    first = {}
    for name, config in PACKED_CONFIGS.items():
        torch.manual_seed(0)
        AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / name)
        logits_NC = load_engine(tmp_path / name, num_threads=1).forward(pack([[1, 2, 3], [4, 5, 6, 7]]))
        first[str(tmp_path / name)] = ["CpuPackedEngine", logits_NC.tolist()]
    command = [sys.executable, "-c", _LATER_START, *first]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    later, has_transformers = json.loads(done.stdout)
    assert later == first
    assert not has_transformers


def test_a_cache_that_cannot_be_written_to_is_none(bert, tmp_path, monkeypatch):
    """The engine loads all the same."""
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert isinstance(load_engine(bert, num_threads=1), CpuPackedEngine)


@pytest.mark.parametrize("wrong", [1.0, float("nan")])
def test_a_packed_engine_that_disagrees_is_not_used(fresh_cache, bert, monkeypatch, wrong):
    """Where packed logits differ from the model's own, the padded engine runs and says why."""
    right = CpuPackedEngine.forward
    monkeypatch.setattr(CpuPackedEngine, "forward", lambda self, batch: right(self, batch) + wrong)
    engine = load_engine(bert)
    assert isinstance(engine, PaddedEngine)
    assert "self test" in engine.description()


def test_the_self_test_sees_documents_that_attend_to_each_other(bert):
    """Sequences run as one long one are found out."""
    reference = load_engine(bert, precision="fp32")

    class Mixing(CpuPackedEngine):
        def forward(self, batch):
            whole = pack([batch.input_ids_T.tolist()])
            return super().forward(whole).expand(batch.num_sequences, -1)

    mixing = object.__new__(Mixing)
    mixing.__dict__.update(reference.__dict__)
    assert self_test(mixing, reference) > SELF_TEST_TOLERANCE[torch.float32]
    assert self_test(reference, reference) <= SELF_TEST_TOLERANCE[torch.float32]


def test_fake_engines_by_name():
    """fake:, fake:5 and fake:5:0.1 name a fake engine."""
    engine = load_engine("fake:5")
    assert isinstance(engine, FakeEngine)
    assert engine.output_shape == (5,)
    assert load_engine("fake:").output_shape == (2,)
    assert load_engine("fake:3:0.5").seconds_per_token == 0.5
    for bad in ("fake:x", "fake:0", "fake:2:fast"):
        with pytest.raises(UsageError, match="fake:NUM_OUTPUTS"):
            load_engine(bad)


def test_what_is_no_bundle_or_no_device_is_refused(bert, tmp_path):
    """Errors come from Assay's tree."""
    with pytest.raises(BundleError):
        load_engine(tmp_path / "nowhere")
    with pytest.raises(UsageError):
        load_engine(bert, device="tpu")
    with pytest.raises(UsageError):
        load_engine(bert, precision="int4")


def test_onednn_products_are_used_only_where_they_exist(monkeypatch):
    """A build of torch without oneDNN takes the plain products."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not has_onednn()


def test_the_slow_fake_takes_its_time():
    """seconds_per_token makes a slow device."""
    slept = []
    engine = FakeEngine(seconds_per_token=0.25)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("assay.engine.fake.time.sleep", slept.append)
        engine.forward(pack([[1, 2], [3]]))
    assert slept == [0.75]


@pytest.mark.parametrize("count", [1025, 10**20])
def test_more_threads_than_can_start_are_refused(count):
    """A number of threads that OpenMP cannot start is refused where it is typed, not in a worker."""
    with pytest.raises(UsageError, match=r"num_threads is .*at least 1 and at most 1,024"):
        CpuThreads(num_threads=count)


def test_the_engine_in_fp32_of_another_is_loaded_when_first_asked_for(bert):
    """The same model on the same device, once for all threads; an engine in fp32 is its own."""
    half, exact = load_engine(bert, precision="bf16"), load_engine(bert)
    assert in_fp32(exact) is exact
    with ThreadPoolExecutor(4) as threads:
        given = set(threads.map(lambda _: in_fp32(half), range(4)))
    assert len(given) == 1
    batch = pack([[1, 2], [3]])
    assert torch.equal(given.pop().forward(batch), exact.forward(batch))


def test_several_engines_in_fp32_are_those_of_each(bert):
    """Side by side and in the common order, as the engines themselves."""
    several = SeveralEngines([load_engine(bert, precision="bf16"), load_engine(bert)], [(0, 1), (1, 0)])
    logits_NC = load_engine(bert).forward(pack([[1, 2], [3]]))
    expected = torch.cat([logits_NC, logits_NC.flip(1)], dim=1)
    assert torch.equal(in_fp32(several).forward(pack([[1, 2], [3]])), expected)
    assert in_fp32(in_fp32(several)) is in_fp32(several)
