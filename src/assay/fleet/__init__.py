"""Fleets: many machines on one run.

join.py       `assay join`: help with a run, of which nothing but the URL is known
launch/       job files that start one command on many machines
settings.py   what a user may set for it
simulate.py   a fleet on a virtual clock: the real agenda, supply and publish protocol against a modelled world
world.py      the modelled store, devices and faults
"""
