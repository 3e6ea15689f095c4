"""Searching a trained supernet for its best subnet, on the validation split alone."""
