"""What the account service does: `ledger` moves and holds money, `records` keeps the records, `reads` asks."""
