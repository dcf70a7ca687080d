"""A run's folder and its machine: state, card, devices, environment, model files."""

# Registers the classes that model files hold: in a process of the command line,
# `import keras_attn` does not.
from keras_attn import models  # noqa: F401
