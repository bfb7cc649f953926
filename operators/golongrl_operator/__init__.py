"""The operator: one TrainingRun object trains, is restarted where that helps, and says how it stands.

Everything is decided by pure functions (`decide`, `reconcile`, `conditions`); `kube` and `app` only carry it out.
"""
