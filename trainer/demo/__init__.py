"""The whole chain on one machine, as real processes: nonn-trainer demo."""
