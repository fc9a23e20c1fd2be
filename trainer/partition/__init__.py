"""Disjoint, covering, balanced sets of filters, one per student. Pure NumPy and networkx."""

from trainer.partition.choose import METHODS, Method, partition_filters
from trainer.partition.result import Partition

__all__ = ["METHODS", "Method", "Partition", "partition_filters"]
