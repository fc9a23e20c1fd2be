"""Students as TVM modules: from a float32 TFLite file to a small shared library per CPU."""
