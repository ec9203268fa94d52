"""Pictures: one file's pixels, sets of files, and the photos that are on every build host."""
