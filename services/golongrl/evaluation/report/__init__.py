"""What an evaluation found: figures, the page, comparisons, logs for a viewer."""
