"""Rescalings of drawn weights that are measured on batches; one file per method."""
