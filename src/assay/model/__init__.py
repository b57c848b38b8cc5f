"""Token ids in, outputs out: checkpoints, families, heads and the packed batch. Knows torch, never Parquet.

checkpoint.py       a folder: which files are the model, what its config says; no torch
tokenizer_files.py  what the tokenizer's files say, and where they disagree; no torch
pretrained.py       models and tensors of a checkpoint
families.py         the families that run packed, as plain tensors; deberta.py one more
heads.py            what becomes of hidden states, of any output shape
hrm/                recurrent reasoning models over grids: HRM and TRM
parts.py            products, norms, activations
packing.py          the packed batch
"""
