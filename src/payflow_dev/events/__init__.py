"""The catalogue of events as documents, and what was published held against what is in the code."""
