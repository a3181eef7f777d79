"""Task → Graph, read from the operations of a real step."""
