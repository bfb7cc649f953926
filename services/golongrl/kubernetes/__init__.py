"""Pure builders: recipe + values -> Kubernetes objects, and the commands that put them on a cluster and look at it."""
