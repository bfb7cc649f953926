"""Published weights as learner and workers know them: what a version's folder says, and how two versions differ."""
