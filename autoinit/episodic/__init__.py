"""Starts that are learned from many small tasks: episodes, the loops inside and outside of them, what is learned."""
