"""The program on each Pi."""

__version__ = "0.1.0"
