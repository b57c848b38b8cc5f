"""Fleets: many machines on one run.

books.py      `assay prepare books` here or on a cluster
executors.py  the verbs of runs, on this machine or on a cluster that their settings name
join.py       `assay join`: help with a run, of which nothing but the URL is known
estimate.py   `assay estimate`: what a scoring run will take, from a sample of it or a rate from elsewhere
wall.py       how long so much work takes so many workers, by simulation
launch/       job files that start one command on many machines
settings.py   what a user may set for these
ray/          the executor `ray`
serving.py    `assay serve` here or on a cluster
training.py   `assay train` here or on a cluster
simulate.py   a fleet on a virtual clock: the real agenda, supply and publish protocol against a modelled world
world.py      the modelled store, devices and faults
"""
