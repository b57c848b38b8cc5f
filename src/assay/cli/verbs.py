"""The tree of commands: what `assay --help` lists, and where each one is. No command is imported here."""

from assay.cli.verb import Group, Listed

ASSAY = Group(
    summary="grade every document in a corpus with a transformer text classifier, exactly once.",
    commands={
        "quickstart": Listed(
            module="assay.cli.quickstart",
            summary="Fine-tune, calibrate, score, verify, merge and report on real embedded data.",
        ),
        "gutenberg": Group(
            summary="Project Gutenberg to a folder of clean texts with one index, by the publisher's rules.",
            commands={
                "fetch": Listed(
                    module="assay.cli.gutenberg_fetch",
                    summary="Fetch single books over HTTP; more than 100 come from a mirror.",
                ),
                "harvest": Listed(
                    module="assay.cli.gutenberg_harvest",
                    summary="Follow the publisher's list for robots, a request every two seconds.",
                ),
                "sync": Listed(
                    module="assay.cli.gutenberg_sync",
                    summary="Copy the texts of a mirror with rsync, and clean them.",
                ),
                "archive": Listed(
                    module="assay.cli.gutenberg_archive",
                    summary="Take the books out of one archive of texts, local or at an address.",
                ),
            },
        ),
        "tokenize": Listed(
            module="assay.cli.tokenize",
            summary="Turn text into token ids once, for many scoring runs.",
        ),
        "score": Listed(
            module="assay.cli.score",
            summary="Score every row of the sources into a run; run it again to continue.",
        ),
        "embed": Listed(
            module="assay.cli.embed",
            summary="Make a vector of every row of the sources with a sentence encoder, into a run.",
        ),
        "join": Listed(
            module="assay.cli.join",
            summary="Help with a run of which only the URL is known, from any machine.",
        ),
        "launch": Group(
            summary="Start one command on many machines: a job file, checked, and submitted where asked to.",
            commands={
                "slurm": Listed(
                    module="assay.cli.launch_slurm",
                    summary="An array job of Slurm whose tasks share one run.",
                ),
                "kubernetes": Listed(
                    module="assay.cli.launch_kubernetes",
                    summary="An indexed Job of Kubernetes whose pods share one run.",
                ),
                "skypilot": Listed(
                    module="assay.cli.launch_skypilot",
                    summary="Managed jobs of SkyPilot that share one run.",
                ),
                "runpod": Group(
                    summary="Pods of RunPod that share one run, watched until it verifies or the budget is spent.",
                    own=Listed(
                        module="assay.cli.launch_runpod",
                        summary="Pods of RunPod that share one run, watched until it verifies or the budget is spent.",
                    ),
                    commands={
                        "stop": Listed(
                            module="assay.cli.launch_runpod_stop",
                            summary="Delete the pods of one fleet, and say which others stay.",
                        ),
                    },
                ),
                "modal": Listed(
                    module="assay.cli.launch_modal",
                    summary="An app of Modal: workers that share one run, and functions to call.",
                ),
            },
        ),
        "status": Listed(
            module="assay.cli.status",
            summary="Say how far a run is, while it runs and from any machine.",
        ),
        "verify": Listed(
            module="assay.cli.verify",
            summary="Prove that every row of a run is there exactly once.",
        ),
        "merge": Listed(
            module="assay.cli.merge",
            summary="Put scores or vectors back onto their sources, every id checked.",
        ),
        "report": Listed(
            module="assay.cli.report",
            summary="Write one HTML file that shows a run.",
        ),
        "clean": Listed(
            module="assay.cli.clean",
            summary="Show what is left of runs that ended, with its size, and delete it where asked to.",
        ),
        "prepare": Group(
            summary="Turn raw texts into data sets that can be learned from.",
            commands={
                "books": Listed(
                    module="assay.cli.prepare_books",
                    summary="Turn a folder of books into pairs of chunks for training; run it again to go on.",
                ),
                "labelled": Listed(
                    module="assay.cli.prepare_labelled",
                    summary="Clean, deduplicate and split labelled rows, for train, calibrate and evaluate.",
                ),
            },
        ),
        "mine": Listed(
            module="assay.cli.mine",
            summary="Find hard negatives among the nearest texts of an embedded corpus.",
        ),
        "train": Listed(
            module="assay.cli.train",
            summary="Fine-tune a classifier on labelled rows: one label a row, several, or a number.",
        ),
        "sudoku": Group(
            summary="Puzzles, and models that solve them step by step.",
            commands={
                "build": Listed(
                    module="assay.cli.sudoku_build",
                    summary="Make or read puzzles with one solution, rate, split and augment them.",
                ),
                "train": Listed(
                    module="assay.cli.sudoku_train",
                    summary="Train an HRM or a TRM on a folder of puzzles; run it again to go on.",
                ),
            },
        ),
        "calibrate": Listed(
            module="assay.cli.calibrate",
            summary="Fit probabilities, thresholds or intervals of a bundle to held-out labelled rows.",
        ),
        "evaluate": Listed(
            module="assay.cli.evaluate",
            summary="Say how good a bundle is on labelled rows, and how certain that is; compare several.",
        ),
        "compare": Listed(
            module="assay.cli.compare",
            summary="Say whether two documents are of one book or author, how sure that is, and why.",
        ),
        "cascade": Group(
            summary="A cheap model of pairs, then an exact one for what it leaves open.",
            commands={
                "tune": Listed(
                    module="assay.cli.cascade_tune",
                    summary="Choose the cheapest thresholds of two models that keep a recall, on labelled pairs.",
                ),
            },
        ),
        "ensemble": Group(
            summary="Run checkpoints times permutations on puzzles, or build one bundle of classifiers.",
            own=Listed(
                module="assay.cli.ensemble",
                summary="Run checkpoints times permutations on puzzles (`assay ensemble build` is for classifiers).",
            ),
            commands={
                "build": Listed(
                    module="assay.cli.ensemble_build",
                    summary="Make one bundle of several classifiers, which score, evaluate and serve take.",
                ),
            },
        ),
        "pipeline": Group(
            summary="Several commands as one that goes on where it was stopped.",
            commands={
                "books": Listed(
                    module="assay.cli.pipeline_books",
                    summary="From a folder of books to a Siamese model, a cross-encoder and a tuned cascade.",
                ),
            },
        ),
        "style": Group(
            summary="How likely documents of many chunks belong together, for `assay compare`.",
            commands={
                "calibrate": Listed(
                    module="assay.cli.style_calibrate",
                    summary="Fit probabilities of a Siamese model to labelled pairs of documents.",
                ),
            },
        ),
        "bench": Listed(
            module="assay.cli.bench",
            summary="Measure a bundle on a sample of your documents; estimate hours and cost of a corpus.",
        ),
        "estimate": Listed(
            module="assay.cli.estimate",
            summary="Say what a scoring run will take in device-hours, wall time and money, and how sure that is.",
        ),
        "serve": Listed(
            module="assay.cli.serve",
            summary="Serve a model over HTTP: the same scores or vectors, batched and bounded; TEI clients too.",
        ),
        "doctor": Listed(
            module="assay.cli.doctor",
            summary="Say what this machine has, what runs where, and what is slower than it could be.",
        ),
        "completion": Listed(
            module="assay.cli.completion",
            summary="Print a shell's completion script.",
        ),
    },
)
