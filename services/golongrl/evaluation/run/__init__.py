"""Running a suite: targets, requests, the journal, the judge."""
