"""Which of several models of one network is the fastest, where each loses what it loses."""
