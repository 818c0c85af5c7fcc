"""The command line: ``app`` defines commands, ``render`` prints for people, ``output`` prints for machines."""
