"""What can be chosen: formulas, schemes, recipes, the catalogue, the space of a search; pure data, no torch."""
