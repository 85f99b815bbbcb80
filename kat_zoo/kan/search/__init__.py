"""The search for a formula of a table."""
