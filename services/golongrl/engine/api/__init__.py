"""The routes of the engine, each group of them a router."""
