"""What to train, as plain data: schemas, experiments, one file per claimed result."""
