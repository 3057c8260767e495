"""The systems that are measured, a module each, by the protocol of `base`."""
