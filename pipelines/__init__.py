"""tf.data: data sets, splits, augmentation, batches."""
