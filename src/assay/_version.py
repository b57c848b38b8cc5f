"""The version, in a module that imports nothing: rooms read it here, never from the package above them."""

__version__ = "0.1.0"
