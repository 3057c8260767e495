"""What starts the measurements and reads them; needs nothing but Python's standard library.

Nothing in here is imported by the measured code but `dataset`, so that it stays out of the way.
"""
