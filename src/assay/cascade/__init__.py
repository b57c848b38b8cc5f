"""Two classifiers of pairs, one after the other: a cheap one decides what is clear, an exact one the rest."""
