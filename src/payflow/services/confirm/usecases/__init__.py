"""What the confirm service does: `confirm` takes requests, `saga` drives payments, `bank` brings the other bank in,
`lifecycle` cancels, reviews, expires and recovers, `reads` asks."""
