"""Two models of pairs, one after the other, as one bundle: the first decides what is clear, the second the rest."""
