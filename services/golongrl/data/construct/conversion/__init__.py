"""Phase 3, open-source track: rows of public sets, brought to the natural reward of their task type."""
