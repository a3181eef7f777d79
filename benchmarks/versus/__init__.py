"""Beside what people use instead, at equal total cost."""
