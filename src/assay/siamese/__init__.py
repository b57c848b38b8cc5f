"""Two texts to the probability of a relation: each text to a vector, the pair's vectors to a head."""
