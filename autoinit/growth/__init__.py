"""Trained networks made wider, deeper or narrower: what each unit, block and head of another size inherits."""
