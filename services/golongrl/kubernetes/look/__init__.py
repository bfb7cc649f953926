"""What runs on a cluster: reading objects, and `golongrl status`."""
