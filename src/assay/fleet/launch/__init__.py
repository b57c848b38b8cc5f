"""Job files that start one command on many machines: `assay launch`.

settings.py    what a user may set, for every launcher and for each
job.py         one value a job: what every worker runs, and what it needs; what cannot work is refused here
launcher.py    what a launcher is, and the order of its steps: render, check, submit
launchers.py   the launchers by name
slurm.py       an array job
kubernetes.py  an indexed Job
skypilot.py    managed jobs, one a worker
runpod/        pods over RunPod's REST API, watched until the run verifies or its budget is spent
modal.py       an app, from modal_app.py.jinja
gpus.py        kinds of GPU, as each cloud spells them
cloud_settings.py   what a user may set for the last three
"""
