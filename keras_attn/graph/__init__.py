"""Reading and changing the graph of any Keras model."""
