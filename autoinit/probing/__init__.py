"""Trying one draw: signals of a pass, the short training, trainings that wait."""
