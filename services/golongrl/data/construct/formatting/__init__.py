"""From samples to rows of the dataset."""
