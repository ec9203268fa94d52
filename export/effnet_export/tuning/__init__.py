"""The fastest export within a loss: candidates, what each loses and takes, and the frontier."""
