"""Which method and layer to use: screening, halving, confirmation and verdict."""
