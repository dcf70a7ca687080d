"""A local server with TensorFlow Serving's interfaces, for development.

It imports none of the project's models: of the project only the headers of images, the
writing of files and the reading of `models.config`. It could be a distribution of its
own.
"""
