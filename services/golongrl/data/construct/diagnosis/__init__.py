"""Phase 4: what the data is like, in numbers and pictures, and how two data sets differ."""
