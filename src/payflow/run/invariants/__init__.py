"""What must never break, as queries and checks over a live system: `payflow verify` and `payflow stuck`."""
