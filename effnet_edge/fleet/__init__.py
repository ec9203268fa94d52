"""Bundles on a fleet of devices: what runs where, what came of it, and what is left to do."""
