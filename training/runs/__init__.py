"""A run's folder and its machine: state, card, devices, environment, model files."""
