"""Metrics of maps, as in `pytorch_grad_cam.metrics`. `seewhy.trust` has more, with one random map as a baseline."""
