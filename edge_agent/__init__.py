"""The program on each Pi."""
