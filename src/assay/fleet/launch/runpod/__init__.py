"""Pods of RunPod for one run: made, watched, replaced and deleted over its REST API.

api.py        the few calls that are needed, and what their failures mean
pods.py       [pure] names, request bodies, which pods to make and which to delete
ledger.py     what the pods have cost, kept where a second watcher finds it
follow.py     the loop: until the run verifies or its budget is spent
watched.py    how far the run is: from itself, or from what a pod writes
launcher.py   what `assay launch` calls
stop.py       `assay launch runpod stop`
"""
