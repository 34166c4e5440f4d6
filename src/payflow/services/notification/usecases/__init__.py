"""What notification does: `codes` go out at once, `notices` follow events, `deliveries` send them, `reads` asks."""
