"""Runs: plan units, publish parts, resume, verify. Knows no model.

A run is a directory (or object-store prefix) with `run.json`, written once, and `parts/`. A
published part is the only state: what is published is done, everything else is still to do.
Heartbeats, claims and notes of failures lie beside the parts; losing them costs time, never rows.

    settings.py  what every kind of run can be told
    plan.py      rows -> units, and who takes which (pure)
    manifest.py  run.json: what was planned, and what must not change
    cut.py       sources -> unit boundaries; the one type of their ids
    run.py       a run on its store: create or join, list, publish a part
    pipeline.py  unit in, part out; the same for many units in three threads
    gate.py      what is proven beside the first units, before a part; figures.py: what it measured, parity.json
    protocol.py  what a driver and a worker say to each other
    worker.py    a worker's side: take units, publish parts, until told to stop
    driver.py    the driver: units handed out to workers behind handles, retried, stopped
    agenda.py    which unit a driver takes next, among many (pure)
    supply.py    what the agenda asks for: looks, claims, units
    notes.py     what drivers leave for each other: heartbeats, claims, failures
    local.py     workers that are processes of this machine; within.py: one in a thread of the driver
    drive.py     the whole of a run's command
    placement.py which devices, how many threads, which share of the units
    pages.py     where the page of a run may be written
    ranks.py     rank and world size from flags or a launcher's environment (pure)
    kinds.py     what a kind of run fixes, as its owner's records
    parts.py     parts read back; damaged ones found and taken out
    status.py    what is published, how fast, how long still; pace.py: from the times of parts (pure)
    watch/       the same for people, while it goes on
    verify.py    the proof that every row is there exactly once

predictions/ and lightning.py write the same parts from a Lightning Trainer's predict loop.
"""
