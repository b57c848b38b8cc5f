"""What a folder says of how its encoder makes a vector of a text: sentence-transformers' module files.

    modules.json                     the order: Transformer, Pooling, then Dense layers, then Normalize
    1_Pooling/config.json            the pooling; `attention`, with its weights beside it, is Assay's own word
    2_Dense/config.json, weights     a projection
    sentence_bert_config.json        the length of texts

A folder without them is an encoder that says nothing of this. Modules and settings that would give other
vectors than are computed here are refused, never left out. Reads JSON alone and imports no torch.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from assay.errors import BundleError
from assay.model.checkpoint import Checkpoint, JsonObject, brief, read_json, read_optional_json

DenseActivation = Literal["gelu", "relu", "silu", "tanh"]
PoolingName = Literal["mean", "first_token", "attention"]
"""A pooling as users name it."""

MODULES = "modules.json"
"""The file that a folder of sentence-transformers has."""
_LENGTHS = "sentence_bert_config.json"
_PROMPTS = "config_sentence_transformers.json"
_POOLINGS: dict[str, PoolingName] = {"mean": "mean", "cls": "first_token", "attention": "attention"}
_ACTIVATIONS: dict[str, DenseActivation | None] = {
    "identity": None,
    "gelu": "gelu",
    "relu": "relu",
    "silu": "silu",
    "tanh": "tanh",
}
"""Classes of torch.nn, in lower case."""
_OLD_NAMES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_OUR_WAY_OUT = "use a model of mean, first-token or attention pooling with Dense and Normalize modules"


@dataclass(frozen=True, kw_only=True, slots=True)
class DenseFiles:
    """A projection after the pooling."""

    folder: Path
    num_outputs: int
    activation: DenseActivation | None
    """None for none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SentenceFiles:
    """What the files say."""

    pooling: PoolingName | None
    """None where they say nothing."""
    pooling_folder: Path | None
    """Where attention pooling has its weights."""
    dense: tuple[DenseFiles, ...]
    normalized: bool | None
    """Whether vectors have length 1; None where they say nothing."""
    max_length: int | None
    """Tokens of a text; None where they say nothing."""
    prompt: str
    """What stands before every text."""
    prompts: Mapping[str, str] = field(default_factory=dict)
    """What may be asked to stand before a text, by name."""
    files: tuple[Path, ...]
    """What was read and can change a vector."""


def read_sentence_files(folder: Path) -> SentenceFiles:
    """What the module files of a folder say; `BundleError` for what is damaged or not computed here."""
    file = folder / MODULES
    lengths = read_optional_json(folder / _LENGTHS)
    stated = lengths.get("max_seq_length")
    found = SentenceFiles(
        pooling=None,
        pooling_folder=None,
        dense=(),
        normalized=None,
        max_length=stated if isinstance(stated, int) and stated >= 1 else None,
        prompt=_prompt(folder),
        prompts=_prompts(folder),
        files=(),
    )
    _refuse_lower_case(folder, lengths)
    if not file.exists():
        return found
    kinds = _read_modules(file)
    names = [kind for kind, _ in kinds]
    middle = names[2:-1] if names[-1:] == ["Normalize"] else names[2:]
    if names[:2] != ["Transformer", "Pooling"] or set(middle) - {"Dense"}:
        msg = f"{file}: the modules {', '.join(names)}; {_OUR_WAY_OUT}"
        raise BundleError(msg)
    if kinds[0][1] != folder:
        msg = f"{file}: the encoder lies in {kinds[0][1].name}; give a folder whose encoder lies in itself"
        raise BundleError(msg)
    pooling_folder = kinds[1][1]
    dense = tuple(_dense(at) for kind, at in kinds if kind == "Dense")
    pooling = _pooling(pooling_folder)
    with_weights = [each.folder for each in dense] + ([pooling_folder] if pooling == "attention" else [])
    files = [file, pooling_folder / "config.json"]
    for at in with_weights:
        files += dict.fromkeys((at / "config.json", module_weights(at)))
    return SentenceFiles(
        pooling=pooling,
        pooling_folder=pooling_folder,
        dense=dense,
        normalized=names[-1] == "Normalize",
        max_length=found.max_length,
        prompt=found.prompt,
        prompts=found.prompts,
        files=tuple(dict.fromkeys(files)),
    )


def hidden_size_of(checkpoint: Checkpoint) -> int:
    """Width of a checkpoint's hidden states; `BundleError` where its config does not say."""
    names = ("hidden_size", "dim", "d_model")
    found = next((size for name in names if isinstance(size := checkpoint.config.get(name), int)), 0)
    if found < 1:
        msg = f"{checkpoint.path / 'config.json'}: no hidden_size; vectors need one; save the model again"
        raise BundleError(msg)
    return found


def module_weights(folder: Path) -> Path:
    """The file that holds a module's weights; `BundleError` where there is none."""
    file = folder / "model.safetensors"
    if not file.is_file():
        msg = (
            f"{folder}: no model.safetensors; this module has weights; save the model again with safetensors"
        )
        raise BundleError(msg)
    return file


def _read_modules(file: Path) -> list[tuple[str, Path]]:
    """Kind and folder of each module, in order. The one JSON file that is a list."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        msg = f"{file}: not JSON ({error}); the file is damaged; copy or save the model again"
        raise BundleError(msg) from None
    modules = content if isinstance(content, list) else []
    found = []
    for module in modules:
        kind = module.get("type") if isinstance(module, dict) else None
        path = module.get("path", "") if isinstance(module, dict) else None
        if not isinstance(kind, str) or not isinstance(path, str) or ".." in Path(path).parts:
            msg = f"{file}: {brief(module)} is not a module of this folder; copy or save the model again"
            raise BundleError(msg)
        found.append((kind.rpartition(".")[2], file.parent / path))
    if not found:
        msg = f"{file}: a list of modules is needed; copy or save the model again"
        raise BundleError(msg)
    return found


def _pooling(folder: Path) -> PoolingName:
    file = folder / "config.json"
    config = read_json(file, missing="copy or save the model again")
    modes = _modes(config)
    found = _POOLINGS.get(modes[0]) if len(modes) == 1 else None
    if found is None:
        msg = f"{file}: pooling {' and '.join(modes)}; {_OUR_WAY_OUT}"
        raise BundleError(msg)
    if config.get("include_prompt") is False:
        msg = f"{file}: include_prompt is false; prompts are always pooled here; use a model that pools them"
        raise BundleError(msg)
    return found


def _modes(config: JsonObject) -> Sequence[str]:
    """The poolings that a config names; mean where it names none, as sentence-transformers takes it."""
    stated = config.get("pooling_mode")
    if stated is None:
        stated = [mode for name, mode in _OLD_NAMES.items() if config.get(name)]
    modes = [stated] if isinstance(stated, str) else stated
    if not isinstance(modes, list) or not modes:
        return ["mean"]
    return [str(mode) for mode in modes]


def _dense(folder: Path) -> DenseFiles:
    file = folder / "config.json"
    config = read_json(file, missing="copy or save the model again")
    name = (
        str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2].lower()
    )
    if name not in _ACTIVATIONS:
        msg = f"{file}: activation {name!r}; {', '.join(_ACTIVATIONS)} are computed here; use another model"
        raise BundleError(msg)
    num_outputs = config.get("out_features")
    if not isinstance(num_outputs, int) or num_outputs < 1:
        msg = f"{file}: out_features {num_outputs!r}; a whole number from 1 is needed; save the model again"
        raise BundleError(msg)
    return DenseFiles(folder=folder, num_outputs=num_outputs, activation=_ACTIVATIONS[name])


def _prompts(folder: Path) -> dict[str, str]:
    """The prompts of a model by name."""
    prompts = read_optional_json(folder / _PROMPTS).get("prompts")
    found = prompts if isinstance(prompts, dict) else {}
    return {name: prompt for name, prompt in found.items() if isinstance(prompt, str)}


def _prompt(folder: Path) -> str:
    """The prompt that the model puts before every text unless told otherwise."""
    file = folder / _PROMPTS
    name = read_optional_json(file).get("default_prompt_name")
    if name is None:
        return ""
    prompt = _prompts(folder).get(name) if isinstance(name, str) else None
    if prompt is None:
        msg = f"{file}: default_prompt_name {name!r} is not among its prompts; correct one of them"
        raise BundleError(msg)
    return prompt


def _refuse_lower_case(folder: Path, lengths: JsonObject) -> None:
    """Refuses texts put into lower case outside of the tokenizer, which alone makes ids here."""
    if not lengths.get("do_lower_case"):
        return
    normalizer = brief(read_optional_json(folder / "tokenizer.json").get("normalizer"), 10_000)
    if "'lowercase': True" not in normalizer and "'Lowercase'" not in normalizer:
        msg = (
            f"{folder / _LENGTHS}: do_lower_case is true and tokenizer.json keeps upper case; "
            "add a Lowercase normalizer to tokenizer.json, or set it to false"
        )
        raise BundleError(msg)
