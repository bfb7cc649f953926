"""The engine's HTTP interface: client, answers, errors, sampling parameters."""
