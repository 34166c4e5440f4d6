"""What the partner_bank service does."""
