"""The APIs of other CAM packages, computed by seewhy: change the import, keep the code.

`seewhy.compat.pytorch_grad_cam`, `seewhy.compat.torchcam` and `seewhy.compat.captum` have the names, arguments and return types
of the packages, which need not be installed. Where a package returns a wrong map, the map here is the right one, and the
difference is logged once. docs/coming_from.md lists the calls that are covered and all differences.
"""
