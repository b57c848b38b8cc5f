"""Checkpoints times views: members that answer the same items, and honest ways to make one answer of theirs.

grids.py       [pure] which member's grid a rule takes, label-free or with labels
pass_at_k.py   [pure] how often one of k members is right, over all orders of members
"""
