"""run_creation."""
