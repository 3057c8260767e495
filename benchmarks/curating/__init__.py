"""The systems that `benchmarks/curation.py` compares: one module each, with a class `Curator`."""
