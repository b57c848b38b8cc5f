"""The thresholds of a cascade: which pairs a cheap model decides alone, and which an exact one reads too."""
