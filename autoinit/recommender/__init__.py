"""Learns from what studies have found which recipe suits which task. Pure arithmetic on features: no torch."""
