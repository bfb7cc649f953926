"""The stage `verify`: a second model answers each sample with its documents, without them, and with others around."""
