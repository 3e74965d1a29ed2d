"""The command line: the only code that prints, reads configuration or exits."""
