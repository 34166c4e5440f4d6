"""Tools beside the product: load generator, simulated other bank, vendor test servers. Not in the wheel."""
