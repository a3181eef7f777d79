"""A small model in the place of a large one: made, compared with it, and what both have in common."""
