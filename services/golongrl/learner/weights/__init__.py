"""Weight versions: export, store, publishing."""
