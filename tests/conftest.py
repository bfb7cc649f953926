"""What every test may use."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["support.fixtures", "support.redis_server"]

# Speed is not asserted: on a busy machine any example may take a second; hypothesis' own limits are for an idle one.
# Otherwise what hypothesis has chosen for where it runs (in CI the same examples every time).
settings.register_profile("any-machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-machine")
