"""One module for each part of a station; every check is a function from Patient to Findings."""
