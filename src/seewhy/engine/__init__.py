"""`explain`: options, inputs, layers and targets are resolved, and every method runs with as few passes as possible."""
