"""Compare two files of records: what is faster or slower, by intervals, and limits."""
