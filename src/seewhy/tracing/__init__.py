"""Run a model once, without modifying it, and record the layers that a user selects.

Reading order: `twin` copies the module tree; `record` runs the twin and `recorder` holds its hooks; `trace` has the
data types. `grid`, `grid_inference` and `token_hints` map outputs to positions in the input. `layer_specs`,
`layer_groups`, `layer_selection` and `read_points` select layers. `resume` runs only what follows a layer.
`torch_private` has all private names of PyTorch.
"""
