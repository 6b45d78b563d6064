"""Tracing: one forward pass through a twin."""
