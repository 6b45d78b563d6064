"""Metrics of maps: evidence that they share, formulas of arrays, and a catalog with cards."""
