"""The learner's RayJob: names, parts, rendering."""
