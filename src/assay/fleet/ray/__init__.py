"""The executor `ray`: workers on the machines of a Ray cluster.

attempts.py  a training whose ranks may be lost: when it begins again, with what, and when it is over
cluster.py   a cluster that is joined: what it has, whether its machines fit, the workers of a run
crew.py      the driver's side of the workers: an actor each, started, heard and ended
rank.py      what runs on the other machines of a training: a rank's process in a worker of Ray Train
remote.py    what runs on the other machines of a run: an actor that holds one worker process
replica.py   what runs on the other machines of a server: a replica of Ray Serve
serving.py   the driver of a server: replicas and proxies of Ray Serve, started, told to reload, ended
training.py  the driver of a training: its ranks through Ray Train
"""
