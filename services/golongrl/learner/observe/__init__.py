"""What the learner reports: status, health endpoints, metrics log, experiment trackers."""
