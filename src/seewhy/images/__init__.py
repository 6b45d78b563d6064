"""Images: find and decode files, convert them to upright sRGB arrays, and preprocess them into model inputs."""
