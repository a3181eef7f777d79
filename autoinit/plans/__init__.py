"""Recipe × Graph → Plan: what every parameter gets, and why; pure data, no torch."""
