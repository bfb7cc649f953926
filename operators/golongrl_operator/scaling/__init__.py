"""How many engines a run's pool should have: signals from the queue, a controller in virtual time, a simulator."""
