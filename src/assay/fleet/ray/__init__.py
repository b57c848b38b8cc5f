"""The executor `ray`: the workers of a run on the machines of a Ray cluster.

cluster.py   a cluster that is joined: what it has, whether its machines fit, the workers of a run
crew.py      the driver's side of the workers: an actor each, started, heard and ended
remote.py    what runs on the other machines: an actor that holds one worker process
"""
