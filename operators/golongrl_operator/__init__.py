"""The operator: creates the RayJobs of TrainingRuns, restarts and replaces them, and reports their status.

Pure functions make every decision (`decide`, `reconcile`, `conditions`); `kube` and `app` only carry it out.
"""
