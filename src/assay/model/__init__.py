"""Token ids in, outputs out: checkpoints, families, heads and the packed batch. Knows torch, never Parquet.

checkpoint.py       a folder: which files are the model, what its config says; no torch
tokenizer_files.py  what the tokenizer's files say, and where they disagree; no torch
labels.py           the task and the names of the labels, by config.json; no torch
sentence_files.py   how an encoder makes a vector of a text, by sentence-transformers' files; no torch
pretrained.py       models and tensors of a checkpoint
left_out.py         layers and heads that weights hold and a classifier does not use
families.py         the families that run packed, as plain tensors; deberta.py one more
heads.py            what becomes of hidden states, of any output shape; embedding.py: of a sentence encoder
hrm/                recurrent reasoning models over grids: HRM and TRM
parts.py            products, norms, activations
packing.py          the packed batch
"""
