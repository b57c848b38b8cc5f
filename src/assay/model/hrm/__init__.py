"""Recurrent reasoning models over grids: HRM (Wang et al. 2025) and TRM (Jolicoeur-Martineau 2025).

config.py      shapes and cycles of a model, and what its tensors must be called; no torch
network.py     one step on a carry, as plain torch: the reference for every faster forward
halting.py     training's step: fresh puzzles, when a puzzle is given up, targets of the halting heads
losses.py      stablemax cross entropy and the halting losses
noise.py       noise on the latent state that belongs to a puzzle, not to its batch
files.py       the official layout (`step_<N>` beside all_config.yaml) and ours (safetensors beside config.json)
"""
