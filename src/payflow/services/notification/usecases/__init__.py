"""What notification does: `codes` go out at once, `notices` follow events, `deliveries` send them, vendors' `callbacks`
tell what became of them, `devices` are where push goes, `reads` asks; `webhooks` are for programs."""
