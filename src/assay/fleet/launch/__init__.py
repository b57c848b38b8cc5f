"""Job files that start one command on many machines: `assay launch`.

settings.py    what a user may set, for every launcher and for each
job.py         one value a job: what every worker runs, and what it needs; what cannot work is refused here
launcher.py    what a launcher is, and the order of its steps: render, check, submit
launchers.py   the launchers by name
slurm.py       an array job
kubernetes.py  an indexed Job
"""
