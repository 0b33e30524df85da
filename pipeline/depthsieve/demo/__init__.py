"""The whole way on rendered scenes: label, evaluate, curate, train a student, and a page to look at."""
