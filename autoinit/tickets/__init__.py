"""Lottery tickets: which weights of a network are trained at all, chosen at or before the start."""
