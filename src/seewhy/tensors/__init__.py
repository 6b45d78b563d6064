"""Functions on PyTorch tensors that do not depend on a model or method: maps, nested outputs, the random state."""
