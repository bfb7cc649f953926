"""How many engines a run's pool should have: signals from the queue, and a controller without a clock."""
