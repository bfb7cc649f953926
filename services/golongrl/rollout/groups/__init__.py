"""A leased row's way to a group: generate, score, hand in, with its progress."""
