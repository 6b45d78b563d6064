"""Where logged images go: a folder, TensorBoard, Weights & Biases or MLflow."""
