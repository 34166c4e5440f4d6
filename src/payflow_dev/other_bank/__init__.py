"""The simulated other bank: own books, own process, and the judge of what was really paid."""
