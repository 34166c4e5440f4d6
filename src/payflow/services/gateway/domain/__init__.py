"""What the gateway decides, without a driver, a clock or randomness."""
