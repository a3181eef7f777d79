"""Weights that have become stale: shrunk and perturbed, or dormant units drawn anew."""
