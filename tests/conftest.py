"""What every test may use."""

from hypothesis import settings

# Without deadlines, which a busy machine misses, and with the same examples every time: whether the tests pass is then
# a fact about the code. `make test-full` draws new ones.
settings.load_profile("ci")
settings.register_profile("search", settings.get_profile("ci"), derandomize=False)

pytest_plugins = ["support.fixtures", "support.redis_server", "support.sender"]
