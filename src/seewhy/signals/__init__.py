"""Signals: what a method can read."""
