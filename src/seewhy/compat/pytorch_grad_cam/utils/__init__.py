"""Images, targets and layers, as in `pytorch_grad_cam.utils`."""
