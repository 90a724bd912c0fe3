"""What runs in Temporal: workflows, activities, scheduling and the worker."""
