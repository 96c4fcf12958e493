"""Downloads and archives that others published."""
