"""Values files and the learner's RayJob, as the chart renders it."""
