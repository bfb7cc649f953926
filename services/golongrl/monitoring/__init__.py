"""What is known of all services together: the catalogue of their metrics, the dashboards and alerts that use it."""
