"""The build host's knowledge of real pictures: calibration sets and what is measured on them."""
