"""Starts that come from trained weights: what is new beside them, and what it gets; one file per method."""
