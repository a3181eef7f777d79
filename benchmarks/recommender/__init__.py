"""How well recipes are chosen without trying any."""
