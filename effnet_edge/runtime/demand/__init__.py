"""What a model of a bundle would take of the machine, told before its library sees or runs it."""
