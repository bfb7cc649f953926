"""What every test may use."""

pytest_plugins = ["support.fixtures", "support.redis_server", "support.sender"]
