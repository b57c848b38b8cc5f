"""Checkpoints times views: members that answer the same items, and honest ways to make one answer of theirs.

grids.py       [pure] which member's grid a rule takes, label-free or with labels
pass_at_k.py   [pure] how often one of k members is right, over all orders of members
outcomes.py    [pure] what members answered, as arrays
findings.py    [pure] outcomes counted: rules, members, curves, intervals
members.py     a view, a model's passes, answers in the puzzle's own digits; pieces that fit into memory
reasoners.py   checkpoints of HRM and TRM as solvers
rows.py        outcomes as the rows of a part
settings.py, kind.py, plan.py, work.py, worker.py   the run: a batch of puzzles is a unit, every member takes its turn
verb.py        the whole of `assay ensemble`
results.py, report.py, display.py      its JSON, its page, its bars
build.py       classifiers to one bundle: members checked, pooled raw, calibrated once, measured on test rows
choose.py      [pure] the fewest members that do nearly as well, on validation rows
soup.py        the mean of weights that began together, greedily
measure.py     [pure] members, pooled, by their number, with intervals
second_order.py    [pure] pairs in a second order only where the first does not decide
compare_rules.py   [pure] the same outputs by each rule; pairs with their texts swapped
build_report.py                        its page
"""
