"""Phase 2: which documents are asked about, for which task types and lengths."""
