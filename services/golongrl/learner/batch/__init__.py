"""From groups of the queue to the samples of a step, and the metrics of the batch."""
