"""The command line: one verb per room. Parse, call one function, print, turn an error into a status."""
