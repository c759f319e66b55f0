"""Parts to build services from."""
