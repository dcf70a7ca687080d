"""A task over any number of images, by any number of workers."""
