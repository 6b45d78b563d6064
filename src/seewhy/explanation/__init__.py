"""Explanation: the result."""
