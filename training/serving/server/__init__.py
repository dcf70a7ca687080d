"""A local server with TensorFlow Serving's interfaces, for development."""
