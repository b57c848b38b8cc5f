"""The deployable: a folder with weights, tokenizer, labels, calibration and provenance.

A bundle is a plain `transformers` folder (`config.json`, `model.safetensors`, `tokenizer.json`)
plus two files of Assay's, both optional: `assay.json` says what the classifier is and where it came from,
`calibration.json` how its logits become probabilities.

folders.py      what kind of model a folder holds, by the files in it
bundle.py       the Bundle value
load.py         a folder -> the checked Bundle, its fingerprint
ensemble.py     several classifiers as one bundle; embedder.py: a sentence encoder's folder
texts.py        single texts or pairs: what a bundle takes, against what it is given
description.py  assay.json, read and written
calibration.py  calibration.json and style_calibration.json, read and written
publish.py      a folder that appears whole or not at all

What the folder holds of transformers' is read by `model.checkpoint`; calibrations are fitted in `calibrate`.
"""
