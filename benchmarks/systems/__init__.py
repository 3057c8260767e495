"""The measured systems, one module each; all implement the classes of `base`."""
