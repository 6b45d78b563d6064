"""Engine: the public calls."""
