"""Training of HRM and TRM on grids of puzzles; its checkpoints, signals and progress are those of `train`.

settings.py    what it can be told
feed.py        which puzzles a step is offered, of a seed and the step alone
optimizer.py   AdamATan2 or AdamW over all weights as one tensor, SignSGD for puzzle embeddings, their average
fused.py       a step's forward on a GPU
state.py       what a checkpoint holds: weights, optimizer, and the puzzles that are half thought through
validate.py    share of held-out grids and cells that are right
train.py       the loop

`train`'s own loop is about rows of text: lengths, token budgets, passes of a step, epochs, one best set of weights.
Here a step has state of its own (carries), no epochs to speak of, and many sets of weights are kept.
"""
