"""Keeping the warehouse small and sound."""
