"""Small real sentence encoders, with a part of MiniLM's tokenizer, and whole embed runs in this process."""

import json

import torch
from safetensors.torch import save_file
from support.gates import past_gate
from support.scoring import CONFIGS, write_tokenizer
from transformers import AutoModel, set_seed

from assay.embed.kind import EMBED
from assay.embed.place import place
from assay.embed.plan import plan_embed
from assay.embed.settings import EmbedSettings
from assay.embed.worker import open_embed_work
from assay.runs.pipeline import run_unit
from assay.runs.run import create_or_join

OLD_TYPE = "sentence_transformers.models."


def make_encoder_folder(
    folder, *, family="bert", pooling="mean", normalize=True, dense=None, max_seq_length=48, seed=0
):
    """An encoder with random weights in a sentence-transformers folder; `pooling` None leaves the modules out."""
    set_seed(seed)
    config = CONFIGS[family]()
    model = AutoModel.from_config(config)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    if pooling is None:
        return folder
    size = model.config.hidden_size
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    config = {"word_embedding_dimension": size, "pooling_mode": pooling}
    write(folder / "1_Pooling" / "config.json", config)
    if pooling == "attention":
        shapes = {"dense.weight": (8, size), "dense.bias": (8,), "score.weight": (1, 8), "score.bias": (1,)}
        weights = {name: torch.randn(shape) for name, shape in shapes.items()}
        save_file(weights, folder / "1_Pooling" / "model.safetensors")
    if dense is not None:
        modules.append(("2_Dense", "Dense"))
        write(
            folder / "2_Dense" / "config.json",
            {
                "in_features": size,
                "out_features": dense,
                "bias": True,
                "activation_function": "torch.nn.modules.activation.Tanh",
            },
        )
        weights = {"linear.weight": torch.randn(dense, size), "linear.bias": torch.randn(dense)}
        save_file(weights, folder / "2_Dense" / "model.safetensors")
    if normalize:
        modules.append(("3_Normalize", "Normalize"))
    listed = [
        {"idx": k, "name": str(k), "path": path, "type": OLD_TYPE + kind}
        for k, (path, kind) in enumerate(modules)
    ]
    write(folder / "modules.json", listed)
    write(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
    return folder


def write(file, content):
    """A JSON file, its folder made where there is none."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def settings_of(source, bundle, run, **settings):
    """Settings of an embed run, without the gate unless asked for."""
    return EmbedSettings(
        sources=(str(source),), bundle=str(bundle), run=str(run), **{"parity_documents": 0, **settings}
    )


def plan_here(chosen):
    """The run, created or joined."""
    here = place(chosen, EMBED, lambda: None)
    return create_or_join(chosen.run, plan_embed(chosen, here.planned, here.precision)[0])[0]


def open_work(run, **options):
    """The work of an embed run on one thread, past its gate."""
    return past_gate(open_embed_work(run, device="cpu", num_threads=1, **options))[0]


def embed_here(source, bundle, run, **settings):
    """A whole embed run in this process, through what a worker does; the run."""
    made = plan_here(settings_of(source, bundle, run, **settings))
    work = open_work(made)
    for unit in made.manifest.units():
        if not made.is_published(unit):
            run_unit(made, work, unit)
    return made
