"""Studies: runs x seeds x settings from one file, and the table and pages that come of them."""
