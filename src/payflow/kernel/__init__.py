"""Pure building blocks that know no driver, no clock and no service."""
