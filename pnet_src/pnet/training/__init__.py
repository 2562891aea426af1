"""Training: the one loop, batches of fields and of stars, runs and their record."""
