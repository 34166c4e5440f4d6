"""Points, level and velocity of a payment, for exactly one amount and payee."""
