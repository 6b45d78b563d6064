"""`Explanation`: the maps of one call, with everything that is read, drawn or saved from them. It holds no model."""
