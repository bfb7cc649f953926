"""The stage `generate`: a question with its gold answer for each selected slot, by code or by a model."""
